"""Places for workers on one host: how many may live, who waits for one, and who is asked to make room meanwhile.

First come, first served. That all places are taken is load, not a fault of the worker that waits: its own start, and
the clock of it, begin when it has a place.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

ROOM_AGAIN_SECONDS = 0.5  # who was to make room may have had something to do just then


class Slots:
    """`make_room` is called for each that waits, again and again while it does; it must not block."""

    def __init__(self, number: int, make_room: Callable[[], None]) -> None:
        self._number = number
        self._free = trio.Semaphore(number)
        self._make_room = make_room
        self._waiting = 0
        self._asked = trio.Event()

    async def run(self) -> None:
        """Ask for room as long as somebody waits. Until it is cancelled."""
        while True:
            await self._asked.wait()
            while self._waiting:
                await trio.sleep(ROOM_AGAIN_SECONDS)
                for _ in range(self._waiting):
                    self._make_room()
            self._asked = trio.Event()

    def take_nowait(self) -> bool:
        """False: there is none."""
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            return False
        return True

    async def take(self) -> None:
        """Wait for one, for which room is made. If it is cancelled, none was taken."""
        self._waiting += 1
        self._asked.set()
        self._make_room()
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    def give_back(self) -> None:
        self._free.release()

    def none_in(self, seconds: float) -> str:
        """Why a worker was not started, in words for the operator."""
        return (
            f"All {self._number} workers of this host had work for {seconds:g} s; more hosts, or a higher "
            "[limits] max_workers, would have taken the message."
        )
