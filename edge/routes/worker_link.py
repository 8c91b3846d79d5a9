"""Where remote workers come in: a WebSocket each, with a worker's key. What is said over it is passed to a host."""

from __future__ import annotations

from functools import partial

import trio
from quart import Blueprint, Response, websocket
from wsproto.frame_protocol import CloseReason

from edge.auth import Principal
from edge.errors import Refusal
from edge.services import Services
from edge.worker_relay import WorkerRelay
from lobu_actors.contract import worker_link as link
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.worker_link import PATH, LinkError
from lobu_actors.gateway.worker_door import Joining, WorkerDoor

_RETRY_SECONDS = 5


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("worker_link", __name__)

    @blueprint.get(PATH)
    async def no_upgrade() -> Response:
        await services.authenticate.worker()
        sentence = "This address is a WebSocket for remote workers; `lobu worker connect` connects to it."
        raise Refusal(426, ApiError.UPGRADE_REQUIRED, sentence, headers={"Upgrade": "websocket"})

    @blueprint.websocket(PATH)
    async def worker_link() -> None:
        principal = await services.authenticate.worker()
        door = _door(services)
        services.streams.worker_links += 1
        services.held().callback(partial(_one_less, services))
        await websocket.accept()
        code, reason = await _serve(services, door, principal)
        await websocket.close(code, _fit(reason))
        with trio.move_on_after(services.settings.linger_seconds):
            while True:
                await websocket.receive()

    return blueprint


def _door(services: Services) -> WorkerDoor:
    if services.worker_door is None:
        raise Refusal(503, ApiError.NO_REMOTE_WORKERS, "This server takes no remote workers.")
    if services.streams.worker_links >= services.settings.max_worker_links:
        sentence = "This server has as many links of remote workers as it takes; try again later."
        raise Refusal(429, ApiError.TOO_MANY_STREAMS, sentence, retry_after_seconds=_RETRY_SECONDS)
    return services.worker_door


def _one_less(services: Services) -> None:
    services.streams.worker_links -= 1


async def _serve(services: Services, door: WorkerDoor, principal: Principal) -> tuple[int, str]:
    """The close code and reason."""
    settings = services.settings
    first: str | bytes | None = None
    with trio.move_on_after(settings.worker_join_seconds) as waiting:
        first = await websocket.receive()
    if waiting.cancelled_caught:  # it, or the way here, stood still: nothing says that it does not fit
        return link.NOBODY_THERE, "The first message did not come in time; try again."
    join: link.LinkMessage | None = None
    try:
        join = link.decode(first) if isinstance(first, str) else None
    except LinkError as error:
        return link.REFUSED, f"The first message is {error}."
    if not isinstance(first, str) or not isinstance(join, link.Join):
        return link.REFUSED, "The first message must be `link.join`, as text."
    joining = Joining(principal.organization_id, principal.user_id)
    relay = WorkerRelay(
        door, joining, join, first, settings.worker_hosts_seconds, join_seconds=settings.worker_join_seconds
    )

    async def end_with_the_server() -> None:
        await services.streams.stopped.wait()
        relay.end(CloseReason.SERVICE_RESTART, "This server is going; connect again.")

    async def receive() -> str:
        text = await websocket.receive()
        if isinstance(text, str):
            return text
        relay.end(CloseReason.UNSUPPORTED_DATA, "Messages are text.")
        return await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_with_the_server)
        ending = await relay.run(receive, websocket.send)
        nursery.cancel_scope.cancel()
    return ending


def _fit(reason: str) -> str:
    """A close frame has room for 123 bytes."""
    data = reason.encode()
    return reason if len(data) <= 123 else data[:120].decode("utf-8", "ignore") + "…"
