"""A request's body that knows when it has wholly arrived, and how to wait for the rest of one that is refused.

Why: closing a connection while its peer still sends resets it, and the peer would see a broken connection in place of
the answer that says why. Bounded in time; what arrives meanwhile is counted against the body's limit and dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import trio
from quart import request
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers.request import TrioBody, TrioRequest
from werkzeug.datastructures import Headers

from edge.errors import Refusal
from edge.request import parse_object
from edge.settings import EdgeSettings
from edge.wire import Json
from lobu_actors.contract.errors import ApiError

ROOM_BYTES = 256 * 1024


class EdgeBody(TrioBody):
    """`ended` is set once the client has sent all of it, also when it was too large.

    A streamed one has no limit of its own; its reader has one. It takes in what there is room for, see EdgeConnection.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self.ended = trio.Event()
        self.streamed = False
        self._appending = False
        self._discarding = False
        self._taken = trio.Event()

    async def __anext__(self) -> bytes:
        data = await super().__anext__()
        self._taken.set()
        return data

    async def until_room(self) -> None:
        """Until more of a streamed body may be taken from its connection."""
        while self.streamed and not self._discarding and len(self._data) >= ROOM_BYTES:
            self._taken = trio.Event()
            await self._taken.wait()

    def discard(self) -> None:
        """Nobody reads it any more: drop what is here and what comes."""
        self._discarding = self.streamed
        if self._discarding:
            self._data.clear()
            self._taken.set()

    def append(self, data: bytes) -> None:
        if self._discarding:
            return
        # A body that outgrows its limit is marked complete from within; that is not its end.
        self._appending = True
        super().append(data)
        self._appending = False

    def set_complete(self) -> None:
        super().set_complete()
        if not self._appending:
            self.ended.set()


class LargerBody(msgspec.Struct, frozen=True):
    """A path (as it ends) that takes more than the app's limit, from whom `may` says yes to by the request's headers.

    Asked before anything of the body is held, so that a stranger cannot fill the memory.
    """

    path: str
    max_bytes: int
    may: Callable[[Headers], bool]


class EdgeRequest(TrioRequest):
    body_class = EdgeBody
    larger_bodies: tuple[LargerBody, ...] = ()

    def __init__(self, *args: Any, max_content_length: int | None = None, **options: Any) -> None:
        super().__init__(*args, max_content_length=max_content_length, **options)
        for larger in self.larger_bodies:
            if self.path.endswith(larger.path) and larger.may(self.headers):
                self.max_content_length = larger.max_bytes
                self.body = self.body_class(self.content_length, larger.max_bytes)
        if (self.mimetype or "").lower() == "multipart/form-data":
            self.body = self.body_class(None, None)
            self.body.streamed = True


class EdgeConnection(TrioASGIHTTPConnection):
    """Takes a body from its connection only as fast as it is read; then the client's sending slows down too."""

    async def handle_messages(self, nursery: trio.Nursery, request: Any, receive: Any) -> None:  # type: ignore[override]
        async def receive_with_room() -> Any:
            if isinstance(request.body, EdgeBody):
                await request.body.until_room()
            return await receive()

        await super().handle_messages(nursery, request, receive_with_room)


def request_class(*larger_bodies: LargerBody) -> type[EdgeRequest]:
    return type("EdgeRequest", (EdgeRequest,), {"larger_bodies": larger_bodies})


async def discard_body(seconds: float) -> None:
    """Wait until the current request's body has arrived, unless it has none or takes longer than `seconds`."""
    expected = request.content_length or "Transfer-Encoding" in request.headers
    if expected and isinstance(request.body, EdgeBody):
        request.body.discard()
        with trio.move_on_after(seconds):
            await request.body.ended.wait()


async def read_object(settings: EdgeSettings, *, optional: bool = False) -> Json:
    """The request's JSON object; `optional`: no body means an empty one.

    Raises Refusal (400, 415), and werkzeug's 408 and 413 for a body that is late or too large.
    """
    if request.content_length is None and "Transfer-Encoding" not in request.headers:
        if optional:
            return {}
        raise Refusal(400, ApiError.INVALID_JSON, "The request has no body; send a JSON object.")
    if not optional or request.content_length != 0:
        _require_json()
    raw = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    if optional and not raw:
        return {}
    return parse_object(raw, settings)


def require_unencoded() -> None:
    """Raises Refusal 415 for a body in a coding: nothing is unpacked here, and packed it reads as nonsense."""
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity"):
        sentence = "Bodies are taken as they are; send it without Content-Encoding."
        headers = {"Accept-Encoding": "identity"}
        raise Refusal(415, ApiError.UNSUPPORTED_MEDIA_TYPE, sentence, headers=headers)


def _require_json() -> None:
    require_unencoded()
    kind = (request.mimetype or "").lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal(
            415,
            ApiError.UNSUPPORTED_MEDIA_TYPE,
            "This address takes JSON; send it with Content-Type: application/json.",
        )
