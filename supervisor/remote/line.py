"""Who gets a place of a runner, within one organization and worker type: first come, first served.

That all of them are taken is load, as with the workers of this host (`supervisor/workers/slots.py`): who waits has room
made, waits for longer than a start may take, and its start begins when it has a place. That there is none at all is a
runner that nobody started, which its operator has to learn soon.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container

import attrs
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.worker_door import Joining, WorkerPipe
from supervisor.remote.worker import NoPlace, RemoteWorker
from supervisor.workers.slots import ROOM_AGAIN_SECONDS


@attrs.define(eq=False)
class Link:
    """A pipe that came in, and whom it belongs to: nobody as long as it is idle."""

    pipe: WorkerPipe
    joining: Joining
    worker: RemoteWorker | None = None
    machine: str = ""

    def give(self, worker: RemoteWorker) -> None:
        self.worker, worker.machine = worker, self.machine


@attrs.define(eq=False)
class _Wish:
    worker: RemoteWorker
    granted: trio.Event = attrs.field(factory=trio.Event)
    place: Link | None = None


@attrs.define(eq=False)
class Line:
    """`make_room` has one of these conversations, if it is at rest, give its place up soon; it must not block."""

    kind: str
    place_seconds: float  # from the wish on
    make_room: Callable[[Container[ConversationRef]], None]
    idle: deque[Link] = attrs.field(factory=deque)
    _wishes: deque[_Wish] = attrs.field(factory=deque)
    _holders: dict[ConversationRef, RemoteWorker] = attrs.field(factory=dict)

    def offer(self, place: Link) -> None:
        """It belongs to nobody, any more or yet."""
        if self._wishes:
            wish = self._wishes.popleft()
            self._give(place, wish.worker)
            wish.place = place
            wish.granted.set()
        else:
            self.idle.append(place)

    def withdraw(self, place: Link) -> None:
        if place in self.idle:
            self.idle.remove(place)

    def gone(self, worker: RemoteWorker) -> None:
        """It holds none any more, if it did."""
        if self._holders.get(worker.request.ref) is worker:
            del self._holders[worker.request.ref]

    async def claim(self, worker: RemoteWorker) -> WorkerPipe:
        """As `Places.claim`."""
        self.gone(worker)
        if self.idle:
            return self._give(self.idle.popleft(), worker)
        wish = _Wish(worker)
        self._wishes.append(wish)
        try:
            await self._wait(wish)
        except (trio.Cancelled, NoPlace):
            if wish.place is None:
                self._wishes.remove(wish)
            else:  # it was granted at the same moment
                self.gone(worker)
                wish.place.worker = None
                self.offer(wish.place)
            raise
        assert wish.place is not None
        return wish.place.pipe

    def _give(self, place: Link, worker: RemoteWorker) -> WorkerPipe:
        place.give(worker)
        self._holders[worker.request.ref] = worker
        return place.pipe

    async def _wait(self, wish: _Wish) -> None:
        """Until it is granted. How long that may take depends on whether anybody has a place, and that may change."""
        while wish.place is None:
            startup_seconds = wish.worker.request.startup_seconds
            seconds = max(startup_seconds, self.place_seconds) if self._holders else startup_seconds
            left = wish.worker.asked_at + seconds - time.monotonic()
            if left <= 0:
                raise NoPlace(self._none_in(seconds))
            self.make_room(self._holders)
            with trio.move_on_after(min(left, ROOM_AGAIN_SECONDS)):
                await wish.granted.wait()

    def _none_in(self, seconds: float) -> str:
        return (
            f"No place of a remote worker {self.kind!r} was free within {seconds:g} s; start one more, "
            f"as `lobu worker connect URL --type {self.kind}`."
        )
