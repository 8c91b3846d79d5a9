"""The link to ONE other supervisor: kept up, and asked over. Nothing here raises for a supervisor that is away.

`run` connects again and again, with a backoff that grows and is never the same twice, so that a host that comes back is
not run down by all others at once; slowly when the other side does not let us in or speaks no version that we do. While
the link is down every call says at once that nobody was reached, and whoever wants to know what a conversation does
reads the log.

`draining`, `follow` and the calls are what a gateway is made of: `Router` puts them together for a host with
peers, `Detached` for an edge in a process of its own.
"""

from __future__ import annotations

import random
from enum import Enum
from typing import TypeVar

import structlog
import trio
from trio_websocket import ConnectionRejected, WebSocketConnection
from wsproto.utilities import ProtocolError

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.link import wire
from lobu_actors.gateway.link.auth import HostClaims, HostTokens, new_nonce
from lobu_actors.gateway.link.calls import Calls
from lobu_actors.gateway.link.connecting import CannotConnect, Stream, connect, open_stream, read_welcome
from lobu_actors.gateway.link.session import LinkSession, close
from lobu_actors.gateway.protocol import CancelResult, LiveStatus
from lobu_actors.gateway.status import HostStatus
from lobu_actors.gateway.worker_door import Joining

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 3.0
FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 3.0
UNFIT_SECONDS = 15.0
CANCEL_SECONDS = 12.0  # the owner's actor is asked for 10
STATUS_SECONDS = 1.0
SESSION_SECONDS = 20.0
_E = TypeVar("_E", bound=BaseException)


class LinkPhase(Enum):
    UP = "up"
    DOWN = "down"
    GONE = "gone"  # nobody listens where it did: with its advisory lock free, proof that the process ended


class FollowPort:
    """What a client does with what it is told; `Mirrors` implements it."""

    def link_is_up(self, client: LinkClient) -> None: ...

    def link_is_down(self, client: LinkClient) -> None: ...

    def told(self, client: LinkClient, ref: ConversationRef, message: wire.Message) -> None:
        """Raises WireError."""

    def owner_is(self, ref: ConversationRef, host_id: str) -> None: ...


class LinkClient:
    """`host_id` is the other side's, `me` this side's; `follows` gets what is told."""

    def __init__(self, host_id: str, url: str, me: str, tokens: HostTokens, follows: FollowPort) -> None:
        self.host_id = host_id
        self.url = url
        self.phase = LinkPhase.DOWN
        self.draining = False
        self._me = me
        self._tokens = tokens
        self._port = follows
        self._session: LinkSession | None = None
        self._calls = Calls()
        self._numbers: dict[ConversationRef, int] = {}
        self._followed: dict[int, ConversationRef] = {}
        self._add: dict[int, ConversationRef] = {}
        self._drop: list[int] = []
        self._next_number = 0
        self._log = log.bind(peer=host_id, url=url)

    @property
    def up(self) -> bool:
        return self._session is not None

    @property
    def lag_seconds(self) -> float | None:
        """The last heartbeat's round trip. None: the link is down, or has had none yet."""
        return None if self._session is None else self._session.lag_seconds

    async def run(self) -> None:
        """Until cancelled."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            began = trio.current_time()
            reason, unfit = await self._connect_once()
            if trio.current_time() - began > MAX_BACKOFF_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            telemetry.LINK_RECONNECTS.inc()
            wait = UNFIT_SECONDS if unfit else random.uniform(backoff / 2, backoff)
            (self._log.error if unfit else self._log.info)("link is down", reason=reason, again_in=round(wait, 2))
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            await trio.sleep(wait)

    async def _connect_once(self) -> tuple[str, bool]:
        """Why it ended, and whether the two sides do not fit."""
        ended, unfit, phase = "", False, LinkPhase.DOWN
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(CONNECT_SECONDS):
                    stream, host = await open_stream(self.url)
                try:
                    with trio.fail_after(CONNECT_SECONDS):
                        websocket = await self._enter(nursery, stream, host)
                    ended = await self._use(websocket)
                    await close(websocket)
                finally:
                    await trio.aclose_forcefully(stream)
                    nursery.cancel_scope.cancel()
        except* ConnectionRejected as rejected:
            ended, unfit = f"refused with status {_first(rejected, ConnectionRejected).status_code}", True
        except* CannotConnect as group:
            error = _first(group, CannotConnect)
            ended, unfit, phase = str(error), error.unfit, LinkPhase.GONE if error.gone else LinkPhase.DOWN
        except* trio.TooSlowError:
            ended = f"no link within {CONNECT_SECONDS:g} s"
        except* ProtocolError as broken:  # the library's own, when both sides close or ping at the same time
            ended = ended or str(_first(broken, ProtocolError))
        self.phase = phase
        return ended, unfit

    async def _enter(self, nursery: trio.Nursery, stream: Stream, host: str) -> WebSocketConnection:
        nonce = new_nonce()
        token = self._tokens.sign(HostClaims(self._me, self.host_id, nonce))
        websocket = await connect(nursery, stream, host, token)
        welcome = await read_welcome(websocket)
        if self._tokens.verify(welcome.proof) != HostClaims(self.host_id, self._me, nonce):
            raise CannotConnect("the other side does not prove that it is that host", unfit=True)
        return websocket

    async def _use(self, websocket: WebSocketConnection) -> str:
        session = LinkSession(websocket, self._receive, self._pull)
        self._session, self.phase = session, LinkPhase.UP
        self._add, self._drop = dict(self._followed), []
        telemetry.LINKS_UP.labels("out").inc()
        self._log.info("link is up")
        try:
            self._port.link_is_up(self)
            return await session.run()
        finally:
            self._session, self.draining = None, False
            telemetry.LINKS_UP.labels("out").dec()
            self._calls.fail_all()
            self._port.link_is_down(self)

    # --- following

    def follow(self, ref: ConversationRef) -> None:
        if ref not in self._numbers:
            self._next_number += 1
            self._numbers[ref] = self._next_number
            self._followed[self._next_number] = ref
            self._add[self._next_number] = ref
            self._has_more()

    def unfollow(self, ref: ConversationRef) -> None:
        number = self._numbers.pop(ref, None)
        if number is not None:
            del self._followed[number]
            if self._add.pop(number, None) is None:
                self._drop.append(number)
                self._has_more()

    def _has_more(self) -> None:
        if self._session is not None:
            self._session.has_more()

    def _pull(self) -> str | None:
        """Changes of what is followed, many in one message."""
        if self._drop:  # first: one of them may be followed again already, under a new number
            drop, self._drop = tuple(self._drop[: wire.FOLLOWS_AT_ONCE]), self._drop[wire.FOLLOWS_AT_ONCE :]
            return wire.encode(wire.Follow(drop=drop))
        if self._add:
            numbers = list(self._add)[: wire.FOLLOWS_AT_ONCE]
            return wire.encode(wire.Follow(tuple((number, self._add.pop(number)) for number in numbers)))
        return None

    def _receive(self, frame: str | bytes) -> None:
        message = wire.from_server(frame)
        match message:
            case wire.Reply() | wire.Piece():
                self._calls.take(message)
            case wire.State(draining):
                self.draining = draining
            case wire.Owner(ref, host_id):
                self._port.owner_is(ref, host_id)
            case wire.Elsewhere(follows):
                for number in follows:
                    self._tell(number, message)
            case wire.Welcome():
                raise wire.WireError("a second welcome")
            case _:
                self._tell(message.follow, message)

    def _tell(self, number: int, message: wire.Message) -> None:
        ref = self._followed.get(number)
        if ref is not None:  # else it was let go while this was under way
            self._port.told(self, ref, message)

    # --- asking

    def hint(self, ref: ConversationRef, message_id: str | None) -> bool:
        """False: not sent."""
        return self._session is not None and self._session.send(wire.Hint(ref, message_id))

    def answered(self, ref: ConversationRef, question_id: str, answer: str) -> bool:
        """False: not sent."""
        return self._session is not None and self._session.send(wire.Answered(ref, question_id, answer))

    async def cancel(self, ref: ConversationRef, message_id: str | None) -> CancelResult:
        reply = await self._call("cancel", ref, message_id, CANCEL_SECONDS)
        return CancelResult.UNREACHABLE if reply is None else _cancel_result(reply.value)

    async def close(self, ref: ConversationRef) -> bool:
        return await self._call("close", ref, None, CANCEL_SECONDS) is not None

    async def live_status(self, ref: ConversationRef) -> LiveStatus | None:
        reply = await self._call("status", ref, None, STATUS_SECONDS)
        status = None if reply is None else reply.status
        return None if status is None else LiveStatus(status.active, status.queued, status.running, status.streams)

    async def look(self, organization_id: str) -> HostStatus | None:
        reply = await self._call("status", ConversationRef(organization_id, "", ""), wire.LOOK, STATUS_SECONDS)
        return None if reply is None else reply.host

    async def give_up_place(self, joining: Joining) -> bool:
        """Have a conversation at rest give up its place of a runner. False: none there is known to have one."""
        ref = ConversationRef(joining.organization_id, "", "")
        reply = await self._call("status", ref, wire.PLACE + joining.worker, STATUS_SECONDS)
        return reply is not None and reply.value == wire.HELD

    async def session_bytes(self, ref: ConversationRef) -> bytes | None:
        pieces: list[bytes] = []
        reply = await self._call("session", ref, None, SESSION_SECONDS, pieces)
        data = b"".join(pieces)
        return data if reply is not None and reply.number == len(data) else None

    async def purge_snapshots(self, ref: ConversationRef, run_id: str) -> int | None:
        reply = await self._call("purge", ref, run_id, CANCEL_SECONDS)
        return None if reply is None else reply.number

    async def _call(
        self,
        method: wire.Method,
        ref: ConversationRef,
        argument: str | None,
        seconds: float,
        pieces: list[bytes] | None = None,
    ) -> wire.Reply | None:
        """None: nobody was reached in time, or could do it."""
        if self._session is None:
            return None
        with self._calls.call(pieces) as call:
            if self._session.send(wire.Call(call.call_id, method, ref, argument)):
                with trio.move_on_after(seconds):
                    await call.ended.wait()
        return call.reply if call.reply is not None and call.reply.done else None


def _first(group: BaseExceptionGroup[_E], kind: type[_E]) -> _E:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, kind)
    return error


def _cancel_result(value: str | None) -> CancelResult:
    try:
        return CancelResult(value or "")
    except ValueError:  # a later version's
        return CancelResult.UNREACHABLE
