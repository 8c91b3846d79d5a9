"""Which text may travel: what Postgres and UTF-8 can hold. NUL and lone surrogates cannot; both occur in practice.

A client's message with them is refused (`is_storable`); a worker's output is mended (`storable`), since a reply that
could not be written would be a turn that never ends.
"""

from __future__ import annotations

import re
from typing import Any

_BAD = re.compile("[\x00\ud800-\udfff]")
MAX_LEVELS = 100
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def is_storable(text: str) -> bool:
    return _BAD.search(text) is None


def storable(text: str) -> str:
    """`text` with each NUL and lone surrogate replaced by U+FFFD; the number of code points stays the same."""
    return text if text.isascii() and "\0" not in text else _BAD.sub(_REPLACEMENT, text)


def storable_json(value: Any, levels: int = MAX_LEVELS) -> Any:
    """The same for every string, keys too, inside a decoded JSON value; null for what lies deeper than `levels`, since
    whoever reads it goes down there level by level and has a stack that ends."""
    if not value:
        return value
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(key): storable_json(item, levels - 1) for key, item in value.items()} if levels else None
    if isinstance(value, list):
        return [storable_json(item, levels - 1) for item in value] if levels else None
    return value


def is_storable_json(value: Any) -> bool:
    if isinstance(value, str):
        return is_storable(value)
    if isinstance(value, dict):
        return all(is_storable(key) and is_storable_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(is_storable_json(item) for item in value)
    return True


class SurrogateJoiner:
    """Joins surrogate pairs that a worker split over two deltas (a UTF-16 program cuts where it likes), then mends.

    `push` gives what may be shown now; a trailing high surrogate waits for its other half. `flush` gives the rest.
    """

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        if not self._held and text.isascii():
            return storable(text)
        text = self._held + text
        self._held = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._held, text = text[-1], text[:-1]
        if _BAD.search(text) is None:
            return text
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return storable(joined)

    def flush(self) -> str:
        held, self._held = self._held, ""
        return storable(held)
