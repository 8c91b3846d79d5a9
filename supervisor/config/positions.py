"""Where each key of a TOML text stands: a map from its path to its line, for error messages.

`tomllib` gives no positions. This scanner runs over text that tomllib has accepted, so it need not judge it: it only
tells keys, strings, brackets and comments apart. When something is not found, the line of the nearest table that
contains it is given; a wrong line is worse than a coarse one.
"""

from __future__ import annotations

from collections.abc import Sequence

Path = tuple[str | int, ...]

_BARE_END = frozenset(" \t\r\n,=]}#.")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


class Positions:
    """Lines (from 1) of keys, tables and array items, by path: names, and numbers for places in an array."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        scanner = _Scanner(text.replace("\r\n", "\n"), self._lines)
        try:
            scanner.document()
        except (IndexError, ValueError, RecursionError):
            # Not TOML after all. What was found so far is right.
            return

    def line(self, path: Sequence[str | int]) -> int | None:
        """The line of `path`, else of the nearest thing that contains it; None when nothing does."""
        for length in range(len(path), 0, -1):
            found = self._lines.get(tuple(path[:length]))
            if found is not None:
                return found
        return None


class _Scanner:
    def __init__(self, text: str, lines: dict[Path, int]) -> None:
        self._text = text + "\n"
        self._at = 0
        self._line = 1
        self._lines = lines
        self._array_tables: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        while True:
            self._skip(newlines=True)
            if self._at >= len(self._text):
                return
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    # --- characters

    def _peek(self) -> str:
        return self._text[self._at]

    def _next(self) -> str:
        character = self._text[self._at]
        self._at += 1
        if character == "\n":
            self._line += 1
        return character

    def _starts(self, token: str) -> bool:
        return self._text.startswith(token, self._at)

    def _skip(self, *, newlines: bool) -> None:
        """Over blanks, and with `newlines` over line ends and comments too."""
        blanks = " \t\n" if newlines else " \t"
        while self._at < len(self._text):
            character = self._text[self._at]
            if newlines and character == "#":
                while self._peek() != "\n":
                    self._at += 1
            elif character in blanks:
                self._next()
            else:
                return

    # --- keys and tables

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(newlines=False)
            if self._peek() in "\"'":
                parts.append(self._string())
            else:
                start = self._at
                while self._peek() not in _BARE_END:
                    self._at += 1
                parts.append(self._text[start : self._at])
            self._skip(newlines=False)
            if self._peek() != ".":
                return parts
            self._next()

    def _header(self) -> Path:
        line = self._line
        is_array = self._starts("[[")
        self._at += 2 if is_array else 1
        parts = self._key()
        self._at += 2 if is_array else 1
        path = self._resolve(parts[:-1], line)
        path = (*path, parts[-1])
        if not is_array:
            last = self._array_tables.get(path)
            path = path if last is None else (*path, last)
            self._lines[path] = line
            return path
        index = self._array_tables.get(path, -1) + 1
        self._array_tables[path] = index
        self._lines.setdefault(path, line)
        self._lines[(*path, index)] = line
        return (*path, index)

    def _resolve(self, parts: list[str], line: int) -> Path:
        """A header's path with the newest place put in wherever it goes through an array of tables."""
        path: Path = ()
        for part in parts:
            path = (*path, part)
            self._lines.setdefault(path, line)
            last = self._array_tables.get(path)
            if last is not None:
                path = (*path, last)
        return path

    def _pair(self, table: Path) -> None:
        line = self._line
        path = table
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._next()  # the equals sign
        self._skip(newlines=False)
        self._value(path)

    # --- values

    def _value(self, path: Path) -> None:
        character = self._peek()
        if character in "\"'":
            self._string()
        elif character == "[":
            self._array(path)
        elif character == "{":
            self._inline_table(path)
        else:
            # A number, a date (which may hold one blank) or a boolean: up to what ends any of them.
            while self._peek() not in ",]}#\n":
                self._at += 1

    def _array(self, path: Path) -> None:
        self._next()
        index = 0
        while True:
            self._skip(newlines=True)
            if self._peek() == "]":
                self._next()
                return
            if self._peek() == ",":
                self._next()
                continue
            start = self._at
            self._lines[(*path, index)] = self._line
            self._value((*path, index))
            if self._at == start:
                raise IndexError  # a closing bracket of another kind: not TOML
            index += 1

    def _inline_table(self, path: Path) -> None:
        self._next()
        while True:
            self._skip(newlines=True)
            if self._peek() == "}":
                self._next()
                return
            if self._peek() == ",":
                self._next()
                continue
            self._pair(path)

    def _string(self) -> str:
        quote = self._peek()
        if self._starts(quote * 3):
            return self._long_string(quote)
        self._next()
        parts: list[str] = []
        while (character := self._next()) != quote:
            if character == "\n":
                raise IndexError  # no string goes on over a line end
            parts.append(self._escape() if character == "\\" and quote == '"' else character)
        return "".join(parts)

    def _long_string(self, quote: str) -> str:
        """Over a multi-line string; its text is never a key, so it is not needed."""
        self._at += 3
        while not self._starts(quote * 3):
            if self._next() == "\\" and quote == '"':
                self._next()
        self._at += 3
        while self._peek() == quote:  # up to two quotes may stand right before the closing three
            self._at += 1
        return ""

    def _escape(self) -> str:
        kind = self._next()
        digits = {"u": 4, "U": 8}.get(kind, 0)
        if not digits:
            return _ESCAPES.get(kind, kind)
        code = self._text[self._at : self._at + digits]
        self._at += digits
        return chr(int(code, 16))
