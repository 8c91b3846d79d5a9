"""One remote worker's link on its way from this edge to a host: offered to all, taken by one, passed on as it is.

An idle place is offered to every host that can be reached, those that come later too. The first that says `joined` has
it; the pipes to the others are closed. Knows of the messages only `join` and `joined`. What comes from the worker while
nobody has taken it is dropped: it can only be a sign of life.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from lobu_actors.contract import worker_link as link
from lobu_actors.contract.worker_link import LinkError
from lobu_actors.gateway.worker_door import CannotReach, Joining, PipeClosed, WorkerDoor, WorkerPipe

_log = structlog.get_logger(__name__)

TAKEN = "Another host has taken the place."
Receive = Callable[[], Awaitable[str]]
Send = Callable[[str], Awaitable[None]]


class WorkerRelay:
    """`run` gives the close code and reason for the worker's side, once no host has it or may take it any more."""

    def __init__(
        self, door: WorkerDoor, joining: Joining, join: link.Join, first: str, hosts_seconds: float, join_seconds: float
    ) -> None:
        self._door = door
        self._joining = joining
        self._join = join
        self._first = first
        self._hosts_seconds = hosts_seconds
        self._join_seconds = join_seconds
        self._open: dict[str, WorkerPipe] = {}
        self._refused: dict[str, PipeClosed] = {}
        self._taker: WorkerPipe | None = None
        self._ending: tuple[int, str] | None = None
        self._scope = trio.CancelScope()

    async def run(self, receive: Receive, send: Send) -> tuple[int, str]:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._up, receive)
                    await self._offer(nursery, send)
        finally:
            with trio.move_on_after(1.0, shield=True):
                for pipe in list(self._open.values()):
                    await pipe.close(1006, "The worker's link to its edge ended.")
        return self._ending or (1011, "The edge failed to pass the link on.")

    def end(self, code: int, reason: str) -> None:
        if self._ending is None:
            self._ending = code, reason
        self._scope.cancel()

    async def _up(self, receive: Receive) -> None:
        while True:
            text = await receive()
            if self._taker is not None:
                try:
                    await self._taker.send(text)
                except PipeClosed as closed:
                    self.end(closed.code, closed.reason)

    async def _offer(self, nursery: trio.Nursery, send: Send) -> None:
        nobody_since = trio.current_time()
        while self._taker is None:
            hosts = await self._hosts()
            for host in hosts:
                if host not in self._open and host not in self._refused:
                    await self._dial(nursery, host, send)
            if self._open:
                nobody_since = trio.current_time()
            elif refused := next((self._refused[host] for host in hosts if host in self._refused), None):
                self.end(refused.code, refused.reason)
            elif trio.current_time() - nobody_since > self._join_seconds or self._join.resume:
                self.end(link.NOBODY_THERE, "No host can be reached from here just now; try again.")
            await trio.sleep(self._hosts_seconds)

    async def _hosts(self) -> Sequence[str]:
        return [self._join.host] if self._join.resume else await self._door.hosts()

    async def _dial(self, nursery: trio.Nursery, host: str, send: Send) -> None:
        pipe: WorkerPipe | None = None
        try:
            with trio.move_on_after(self._join_seconds):
                pipe = await self._door.open(host, self._joining)
                if self._taker is not None:  # by a host that had waited for it, while this one was dialled
                    await pipe.close(link.UNKNOWN_WORKER, TAKEN)
                    return
                self._open[host] = pipe
                await pipe.send(self._first)
        except (CannotReach, PipeClosed) as error:
            _log.info("worker link not offered", host=host, reason=str(error))
            self._open.pop(host, None)
            return
        if pipe is not None:
            nursery.start_soon(self._down, host, pipe, send)

    async def _down(self, host: str, pipe: WorkerPipe, send: Send) -> None:
        try:
            while True:
                text = await pipe.receive()
                if self._taker is None and _takes(text):
                    await self._take(pipe)
                if pipe is self._taker or self._taker is None:
                    await send(text)
        except PipeClosed as closed:
            self._open.pop(host, None)
            if pipe is self._taker or self._join.resume:
                self.end(closed.code, closed.reason)
            elif closed.code == link.REFUSED:
                self._refused[host] = closed

    async def _take(self, taker: WorkerPipe) -> None:
        self._taker = taker
        for pipe in list(self._open.values()):
            if pipe is not taker:
                await pipe.close(link.UNKNOWN_WORKER, TAKEN)


def _takes(text: str) -> bool:
    try:
        return isinstance(link.decode(text), link.Joined)
    except LinkError:
        return False
