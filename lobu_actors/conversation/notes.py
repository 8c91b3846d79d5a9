"""Log lines that wait until what was decided with them is done: nobody waits for a line, and a line takes as long as a
statement takes to be sent.

They wait for `WITHIN_SECONDS` at most, whatever becomes of the rest: an actor that is stuck, or a store that is away,
is when they are wanted most.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from lobu_actors.conversation.messages import Note
from lobu_actors.runtime.timers import Timer, Timers

WITHIN_SECONDS = 1.0


class Notes:
    """Of one actor. `write` neither waits nor raises."""

    def __init__(self, timers: Timers, write: Callable[[Note], None]) -> None:
        self._timers = timers
        self._write = write
        self._waiting: list[Note] = []
        self._timer: Timer | None = None

    def add(self, note: Note) -> None:
        if self._timer is None:
            self._timer = self._timers.call_at(trio.current_time() + WITHIN_SECONDS, self.flush)
        self._waiting.append(note)

    def flush(self) -> None:
        """Write those that wait, in their order."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        waiting, self._waiting = self._waiting, []
        for note in waiting:
            self._write(note)
