"""Lines that fail nobody: where the disk is full or their reader is gone, they are lost, and the program goes on.

Standard library only: the spawner writes so, too.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO, TypeVar

T = TypeVar("T")


class Lines:
    """As much of a text stream as logging and `print` need."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._try(lambda: self._stream.write(text)) or 0

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except BrokenPipeError:
            # What the stream still holds would fail the exit of the process.
            with suppress(OSError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
        except OSError:
            pass
        return None
