"""A conversation over a WebSocket: the events of the stream go out, calls come in. What both are, others say.

Two tasks, in a nursery of the handler: one sends what the subscription gives, one answers calls, one after the other,
so that a client that sends faster than it is answered waits. Whichever ends first ends the other, and says with which
code the socket closes.
"""

from __future__ import annotations

import attrs
import trio
from quart import Blueprint, Response, websocket
from wsproto.frame_protocol import CloseReason

from edge.errors import Refusal
from edge.following import followed_turn, starting_point, subscribe
from edge.services import Services
from edge.socket_calls import LINES, Caller, answer_call
from edge.subscription import StreamBroken, Subscription
from lobu_actors.contract.errors import ApiError

SUBPROTOCOL = "lobu.v1"


@attrs.define
class _Ending:
    """The first reason to close wins."""

    scope: trio.CancelScope
    code: int | None = None
    reason: str = ""

    def close(self, code: int, reason: str) -> None:
        if self.code is None:
            self.code, self.reason = int(code), reason
        self.scope.cancel()


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("socket", __name__)
    path = "/api/v1/agents/<key>/socket"

    @blueprint.get(path)
    async def no_upgrade(key: str) -> Response:
        await services.conversation(key)
        sentence = "This address is a WebSocket; connect to it with ws:// or wss://."
        raise Refusal(426, ApiError.UPGRADE_REQUIRED, sentence, headers={"Upgrade": "websocket"})

    @blueprint.websocket(path)
    async def socket(key: str) -> None:
        caller, conversation = await Caller.of_handshake(services, key)
        start = starting_point()
        turn = await followed_turn(services, conversation)
        subscription = subscribe(services, conversation, start, turn, LINES)
        offered = SUBPROTOCOL in websocket.requested_subprotocols
        await websocket.accept(subprotocol=SUBPROTOCOL if offered else None)
        async with trio.open_nursery() as nursery:
            ending = _Ending(nursery.cancel_scope)
            nursery.start_soon(_send_events, subscription, ending)
            nursery.start_soon(_answer_calls, caller, ending)
        await websocket.close(ending.code or int(CloseReason.NORMAL_CLOSURE), ending.reason)
        # What the client still sends is taken in, or the connection's end could overtake the close frame.
        with trio.move_on_after(services.settings.linger_seconds):
            while True:
                await websocket.receive()

    return blueprint


async def _send_events(subscription: Subscription, ending: _Ending) -> None:
    try:
        while (chunk := await subscription.next_chunk()) is not None:
            for line in chunk.splitlines():
                await websocket.send(line.decode())
    except StreamBroken as broken:
        ending.close(CloseReason.INTERNAL_ERROR, str(broken))
        return
    if subscription.drained:
        ending.close(CloseReason.SERVICE_RESTART, "This server is going; connect again.")
    else:
        ending.close(CloseReason.NORMAL_CLOSURE, "Everything that was asked for was sent.")


async def _answer_calls(caller: Caller, ending: _Ending) -> None:
    while True:
        raw = await websocket.receive()
        if not isinstance(raw, str):
            ending.close(CloseReason.UNSUPPORTED_DATA, "Messages are text: one JSON object each.")
            return
        await websocket.send((await answer_call(caller, raw)).decode())
