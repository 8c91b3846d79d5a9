"""The one error of the configuration. Owns how a place in it is named; must not know what a valid one looks like."""

from __future__ import annotations


class ConfigError(Exception):
    """Something in lobu.toml, .env, the environment or a key file cannot be used.

    The text is one sentence that names the file, the line (where there is one) and the key, and says what to do.
    """

    def __init__(
        self, reason: str, *, file: str | None = None, line: int | None = None, key: str | None = None
    ) -> None:
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(f"{place}{reason}")
        self.reason = reason
        self.file = file
        self.line = line
        self.key = key
