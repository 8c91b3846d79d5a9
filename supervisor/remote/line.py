"""Who gets a place of a runner, within one organization and worker type: first come, first served.

That all of them are taken is load, as with the workers of this host (`supervisor/workers/slots.py`): who waits has room
made, waits for longer than a start may take, and its start begins when it has a place. That there is none at all is a
runner that nobody started, which its operator has to learn soon. Places that conversations of other hosts have count as
well, and are asked for once those of this host were: a runner serves all hosts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Container

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
    """`make_room` has one of these conversations, if it is at rest, give its place up soon; it must not block.
    `give_up_elsewhere` has the other hosts do so, and says whether one of them has any."""

    kind: str
    place_seconds: float  # from the wish on
    make_room: Callable[[Container[ConversationRef]], None]
    give_up_elsewhere: Callable[[], Awaitable[bool]]
    idle: deque[Link] = attrs.field(factory=deque)
    _wishes: deque[_Wish] = attrs.field(factory=deque)
    _holders: dict[ConversationRef, RemoteWorker] = attrs.field(factory=dict)
    _held_elsewhere: bool = False  # as far as it was asked, since somebody waits

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

    def give_up(self) -> bool:
        """For somebody at another host. False: nobody here has a place."""
        self.make_room(self._holders)
        return bool(self._holders)

    async def claim(self, worker: RemoteWorker) -> WorkerPipe:
        """As `Places.claim`."""
        self.gone(worker)
        if self.idle:
            return self._give(self.idle.popleft(), worker)
        wish = _Wish(worker)
        self._wishes.append(wish)
        served = False
        try:
            waited_seconds = await self._wait(wish)
            served = wish.place is not None
        finally:
            if not served:
                self._leave(wish)
        if wish.place is None:
            raise NoPlace(self._none_in(waited_seconds))
        return wish.place.pipe

    def _leave(self, wish: _Wish) -> None:
        if wish.place is None:
            self._wishes.remove(wish)
        else:  # it was granted at the moment in which who waited was cancelled
            self.gone(wish.worker)
            wish.place.worker = None
            self.offer(wish.place)

    def _give(self, place: Link, worker: RemoteWorker) -> WorkerPipe:
        place.give(worker)
        self._holders[worker.request.ref] = worker
        return place.pipe

    async def _wait(self, wish: _Wish) -> float:
        """Until it is granted, or for as long as it may wait, which is what it gives."""
        if len(self._wishes) == 1:
            self._held_elsewhere = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_elsewhere, wish)
            waited_seconds = await self._granted(wish)
            nursery.cancel_scope.cancel()
        return waited_seconds

    async def _granted(self, wish: _Wish) -> float:
        """How long one may wait depends on whether anybody has a place."""
        waits_since = trio.current_time() - (time.monotonic() - wish.worker.asked_at)
        while True:
            startup_seconds = wish.worker.request.startup_seconds
            is_load = self._holders or self._held_elsewhere
            seconds = max(startup_seconds, self.place_seconds) if is_load else startup_seconds
            left = waits_since + seconds - trio.current_time()
            if wish.place is not None or left <= 0:
                return seconds
            self.make_room(self._holders)
            with trio.move_on_after(min(left, ROOM_AGAIN_SECONDS)):
                await wish.granted.wait()

    async def _ask_elsewhere(self, wish: _Wish) -> None:
        """While it is the first in the line. Who has a place at this host is asked before."""
        if self._holders:
            await trio.sleep(ROOM_AGAIN_SECONDS)
        while True:
            if self._wishes and self._wishes[0] is wish:
                self._held_elsewhere = await self.give_up_elsewhere()
            await trio.sleep(ROOM_AGAIN_SECONDS)

    def _none_in(self, seconds: float) -> str:
        return (
            f"No place of a remote worker {self.kind!r} was free within {seconds:g} s; start one more, "
            f"as `lobu worker connect URL --type {self.kind}`."
        )
