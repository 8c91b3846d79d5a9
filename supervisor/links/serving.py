"""One link that came in: what its client follows and asks, answered from this host's conversations.

Calls run side by side, at most `CALLS_AT_ONCE`; what is more is answered as not done. Hints of one conversation go in
their order, since what interrupts must not overtake what it interrupts. Text and events are pulled from
the feeds as the connection takes them; a change that comes while an earlier one is not yet told joins it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from math import inf

import attrs
import structlog
import trio
from trio_websocket import WebSocketConnection

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Feeds
from lobu_actors.gateway.link import wire
from lobu_actors.gateway.link.session import LinkSession
from lobu_actors.gateway.link.source import FeedSource
from lobu_actors.gateway.owners import Owners
from lobu_actors.gateway.protocol import CancelResult, Gateway
from lobu_actors.gateway.worker_door import Joining

log = structlog.get_logger(__name__)

CALLS_AT_ONCE = 200
FOLLOWS = 100_000
CALL_SECONDS = 11.0  # an actor is asked for 10
HINTS_WAITING = 100  # of one conversation; what is more is found by the sweep

Hinted = Callable[[ConversationRef, str | None], Awaitable[None]]


@attrs.define
class _Told:
    """A follow that is being told, since this host owns its conversation."""

    source: FeedSource
    held: ExitStack


@attrs.define
class _File:
    """A session file on its way."""

    data: bytes
    start: int = 0  # of what is to be sent next
    sent: trio.Event = attrs.field(factory=trio.Event)


class ServedLink:
    """`hinted` is called with the message of a turn that was committed elsewhere."""

    def __init__(
        self,
        websocket: WebSocketConnection,
        nursery: trio.Nursery,
        gateway: Gateway,
        feeds: Feeds,
        owners: Owners,
        hinted: Hinted,
        give_up_place: Callable[[Joining], bool],
        why_not: Callable[[], str | None],
    ) -> None:
        self._session = LinkSession(websocket, self._receive, self._pull, self._beat)
        self._nursery = nursery
        self._gateway = gateway
        self._feeds = feeds
        self._owners = owners
        self._hinted = hinted
        self._give_up_place = give_up_place
        self._why_not = why_not  # a reason for which the link must end
        self._refs: dict[int, ConversationRef] = {}
        self._numbers: dict[ConversationRef, int] = {}
        self._told: dict[int, _Told] = {}
        self._changed: dict[int, None] = {}  # follows with something to tell, in the order in which it came
        self._elsewhere: dict[int, None] = {}
        self._files: dict[int, _File] = {}  # by call
        self._hints: dict[ConversationRef, deque[str | None]] = {}  # message ids, of conversations with a task for them
        self._calls = 0
        self._draining = False

    async def run(self) -> str:
        """Until the link ends; gives the reason."""
        self._owners.on_change.append(self._owner_changed)
        try:
            return await self._session.run()
        finally:
            self._owners.on_change.remove(self._owner_changed)
            for number in list(self._told):
                self._stop_telling(number)

    def end(self, reason: str) -> None:
        self._session.end(reason)

    def _beat(self) -> str | None:
        if self._gateway.draining != self._draining:
            self._draining = self._gateway.draining
            self._session.send(wire.State(self._draining))
        return self._why_not()

    # --- what comes in

    def _receive(self, frame: str | bytes) -> None:
        message = wire.from_client(frame)
        match message:
            case wire.Follow():
                self._follow(message)
            case wire.Hint():
                self._take_hint(message)
            case wire.Answered():
                self._start(partial(self._gateway.answered, message.ref, message.question_id, message.answer))
            case wire.Call():
                if not self._start(partial(self._answer, message)):
                    self._session.send(wire.Reply(message.call_id, done=False))
            case _:
                raise wire.WireError("a second hello")

    def _take_hint(self, hint: wire.Hint) -> None:
        waiting = self._hints.setdefault(hint.ref, deque())
        if len(waiting) < HINTS_WAITING:
            waiting.append(hint.message_id)
        if len(waiting) == 1 and not self._start(partial(self._pass_hints, hint.ref), seconds=inf):
            del self._hints[hint.ref]

    async def _pass_hints(self, ref: ConversationRef) -> None:
        """One after the other; each stays at the head of its line until it was passed on, or its time is over."""
        waiting = self._hints[ref]
        try:
            while waiting:
                with trio.move_on_after(CALL_SECONDS):
                    await self._hinted(ref, waiting[0])
                waiting.popleft()
        finally:
            del self._hints[ref]

    def _start(self, do: Callable[[], Awaitable[None]], *, seconds: float = CALL_SECONDS) -> bool:
        """Bounded by `seconds`. False: too much is under way."""
        if self._calls >= CALLS_AT_ONCE:
            return False
        self._calls += 1
        self._nursery.start_soon(self._do, do, seconds)
        return True

    async def _do(self, do: Callable[[], Awaitable[None]], seconds: float) -> None:
        try:
            with trio.move_on_after(seconds):
                await do()
        finally:
            self._calls -= 1

    async def _answer(self, call: wire.Call) -> None:
        reply = await self._call(call)
        host_id = self._owners.elsewhere(call.ref)
        if not reply.done and host_id is not None:
            self._session.send(wire.Owner(call.ref, host_id))
        self._session.send(reply)

    async def _call(self, call: wire.Call) -> wire.Reply:
        gateway, ref, argument = self._gateway, call.ref, call.argument
        if call.method == "cancel":
            result = await gateway.cancel(ref, argument)
            return wire.Reply(call.call_id, result is not CancelResult.UNREACHABLE, value=result.value)
        if call.method == "close":
            return wire.Reply(call.call_id, await gateway.close(ref))
        if call.method == "status" and argument == wire.LOOK:
            hosts = await gateway.look(ref.organization_id)
            return wire.Reply(call.call_id, bool(hosts), host=hosts[0] if hosts else None)
        if call.method == "status" and (argument or "").startswith(wire.PLACE):
            joining = Joining(ref.organization_id, (argument or "").removeprefix(wire.PLACE))
            return wire.Reply(call.call_id, done=True, value=wire.HELD if self._give_up_place(joining) else None)
        if call.method == "status":
            live = await gateway.live_status(ref)
            status = wire.Status(live.active, live.queued, live.running, live.streams)
            return wire.Reply(call.call_id, done=True, status=status)
        if call.method == "purge":
            number = await gateway.purge_snapshots(ref, argument or "")
            return wire.Reply(call.call_id, number is not None, number=number)
        return await self._send_session(call)

    async def _send_session(self, call: wire.Call) -> wire.Reply:
        data = await self._gateway.session_bytes(call.ref)
        if data is None:
            return wire.Reply(call.call_id, done=False)
        file = self._files[call.call_id] = _File(data)
        self._session.has_more()
        try:
            await file.sent.wait()
        finally:
            self._files.pop(call.call_id, None)
        return wire.Reply(call.call_id, done=True, number=len(data))

    # --- following

    def _follow(self, message: wire.Follow) -> None:
        for number in message.drop:
            if number in self._refs:
                del self._numbers[self._refs.pop(number)]
                self._stop_telling(number)
                self._elsewhere.pop(number, None)
        for number, ref in message.add:
            if number in self._refs or ref in self._numbers or len(self._refs) >= FOLLOWS:
                raise wire.WireError("it is followed already, or too many are")
            self._refs[number], self._numbers[ref] = ref, number
            if not self._tell(number, ref):
                self._elsewhere[number] = None
        self._session.has_more()

    def _owner_changed(self, ref: ConversationRef) -> None:
        number = self._numbers.get(ref)
        if number is None:
            return
        self._stop_telling(number)
        if self._tell(number, ref):
            self._elsewhere.pop(number, None)
        else:
            self._elsewhere[number] = None
        self._session.has_more()

    def _tell(self, number: int, ref: ConversationRef) -> bool:
        """False: this host does not own it."""
        epoch = self._owners.epoch_here(ref)
        if epoch is None:
            return False
        held = ExitStack()
        feed = held.enter_context(self._feeds.reading(ref))
        changed = partial(self._feed_changed, number)
        feed.watch(changed)
        held.callback(feed.unwatch, changed)
        self._told[number] = _Told(FeedSource(number, feed, epoch), held)
        self._changed[number] = None
        return True

    def _stop_telling(self, number: int) -> None:
        told = self._told.pop(number, None)
        self._changed.pop(number, None)
        if told is not None:
            told.held.close()

    def _feed_changed(self, number: int) -> None:
        if number in self._changed:
            telemetry.LINK_COALESCED.inc()
        else:
            self._changed[number] = None
            self._session.has_more()

    # --- what goes out

    def _pull(self) -> str | None:
        """One frame: of each conversation in turn, so that a long reply does not hold up the others."""
        if self._elsewhere:
            numbers = tuple(self._elsewhere)[: wire.FOLLOWS_AT_ONCE]
            for number in numbers:
                del self._elsewhere[number]
            return wire.encode(wire.Elsewhere(numbers))
        while self._changed:
            number = next(iter(self._changed))
            del self._changed[number]
            frame = self._told[number].source.next()
            if frame is not None:
                self._changed[number] = None  # there may be more; behind the others
                return frame
        return self._pull_file()

    def _pull_file(self) -> str | None:
        for call_id, file in self._files.items():
            if file.sent.is_set():
                continue
            start, file.start = file.start, file.start + wire.FILE_BYTES
            if file.start >= len(file.data):
                file.sent.set()
            return wire.encode(wire.Piece(call_id, file.data[start : file.start]))
        return None
