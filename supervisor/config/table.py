"""Checked reading of one TOML table: every key asked for by name and type, every key not asked for refused.

Owns the wording of errors about types and unknown keys. Must not know which keys there are.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from supervisor.config.errors import ConfigError
from supervisor.config.positions import Path, Positions

Json = dict[str, Any]

MAX_NUMBER = 1e12


class Source:
    """A parsed file: its name for messages, and where its keys stand."""

    def __init__(self, file: str, positions: Positions) -> None:
        self.file = file
        self.positions = positions

    def fail(self, path: Path, reason: str) -> NoReturn:
        """Raises ConfigError: "<file>:<line>: `<key>` <reason>."."""
        key = path_text(path)
        subject = f"`{key}` {reason}" if key else reason
        raise ConfigError(subject, file=self.file, line=self.positions.line(path), key=key)


def path_text(path: Path) -> str:
    """`agents[0].deadlines.turn_seconds`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class Table:
    """One table. Ask for every key it may have, then call `finish`."""

    def __init__(self, source: Source, values: Json, path: Path = ()) -> None:
        self.source = source
        self.path = path
        self._values = values
        self._asked: list[str] = []

    @classmethod
    def empty(cls) -> Table:
        return cls(Source("", Positions("")), {})

    def given(self) -> Json:
        """What stands in it, unchecked."""
        return self._values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def names(self) -> Iterator[str]:
        """The keys that are there; for tables whose keys are names that the user chooses."""
        return iter(self._values)

    def fail(self, name: str | None, reason: str) -> NoReturn:
        """Raises ConfigError about one key, or with None about the table itself."""
        self.source.fail(self.path if name is None else (*self.path, name), reason)

    def lacks(self, name: str, reason: str) -> NoReturn:
        """Raises ConfigError: about a key that looks like a slip for `name`, else the reason, about the table."""
        for near in difflib.get_close_matches(name, [key for key in self._values if key not in self._asked], n=1):
            self.fail(near, f"is not a known key; did you mean `{name}`?")
        self.fail(None, reason)

    def raw(self, name: str) -> Any:
        """The value as tomllib gave it; None when it is absent."""
        self._asked.append(name)
        return self._values.get(name)

    def text(self, name: str) -> str | None:
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self.fail(name, f"must be a text in quotes, not {_kind(value)}")
        if not value.strip():
            self.fail(name, "must not be empty; give it a value or remove the line")
        return value

    def boolean(self, name: str, default: bool) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fail(name, f"must be true or false (without quotes), not {_kind(value)}")
        return value

    def integer(self, name: str, default: int | None, *, least: int, most: int) -> int | None:
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(name, f"must be a whole number, not {_kind(value)}")
        if not least <= value <= most:
            self.fail(name, f"must be from {least} to {most}, not {value}")
        return value

    def number(self, name: str, default: float, *, least: float | None = None, most: float = MAX_NUMBER) -> float:
        """A finite number within the bounds; without a lower one, above 0."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(name, f"must be a number, not {_kind(value)}")
        if least is None and not 0 < value <= most:  # false for NaN too
            self.fail(name, f"must be a number above 0 and at most {most:.0f}")
        if least is not None and not least <= value <= most:
            self.fail(name, f"must be a number from {least:g} to {most:g}")
        return float(value)

    def texts(self, name: str) -> tuple[str, ...] | None:
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list):
            self.fail(name, f'must be a list of texts, like ["program", "argument"], not {_kind(value)}')
        for index, item in enumerate(value):
            if not isinstance(item, str) or "\0" in item:
                self.source.fail((*self.path, name, index), "must be a text in quotes without NUL")
        return tuple(value)

    def table(self, name: str) -> Table:
        """A table in this one; an empty one when it is absent."""
        value = self.raw(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self.fail(name, f"must be a table, not {_kind(value)}")
        return Table(self.source, value, (*self.path, name))

    def tables(self, name: str) -> list[Table]:
        """An array of tables; no tables when it is absent."""
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(name, f"must be a list of tables ([[{name}]]), not {_kind(value)}")
        for index, item in enumerate(value):
            if not isinstance(item, dict):
                self.source.fail((*self.path, name, index), f"must be a table, not {_kind(item)}")
        return [Table(self.source, item, (*self.path, name, index)) for index, item in enumerate(value)]

    def json(self, name: str) -> Json:
        """A table of the user's own, which must be JSON: no dates, no NaN."""
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail(name, f"must be a table, not {_kind(value)}")
        self._check_json(value, (*self.path, name))
        return value

    def _check_json(self, value: Any, path: Path) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                self._check_json(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self._check_json(item, (*path, index))
        elif isinstance(value, float) and not math.isfinite(value):
            self.source.fail(path, "must be a finite number, since settings travel as JSON")
        elif not isinstance(value, str | bool | int | float):
            self.source.fail(path, f"must be JSON, not {_kind(value)}; put it in quotes")

    def finish(self) -> None:
        """Refuse the keys that nobody asked for."""
        for name in self._values:
            if name in self._asked:
                continue
            near = difflib.get_close_matches(name, self._asked, n=1, cutoff=0.6)
            if near:
                self.fail(name, f"is not a known key; did you mean `{near[0]}`?")
            known = ", ".join(dict.fromkeys(self._asked))
            self.fail(name, f"is not a known key; remove it (known here: {known})")


def _kind(value: object) -> str:
    kinds: list[tuple[type, str]] = [
        (bool, "true or false"),
        (str, "a text"),
        (int, "a number"),
        (float, "a number with a point"),
        (list, "a list"),
        (dict, "a table"),
    ]
    return next((name for kind, name in kinds if isinstance(value, kind)), "a date or time")
