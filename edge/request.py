"""Reading a request: its JSON body within the limits, and single fields of it. Must not know what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol, overload

import attrs

from edge.errors import Refusal, invalid_field
from edge.settings import EdgeSettings
from edge.wire import BadJson, BadShape, BadText, Json, decode_object
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import is_message_id


class Headers(Protocol):
    """By name, in whatever case."""

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, default: str, /) -> str: ...


class Opening(Protocol):
    """What of a request is looked at."""

    @property
    def method(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def args(self) -> Mapping[str, str]: ...
    @property
    def cookies(self) -> Mapping[str, str]: ...


@attrs.frozen
class PlainHeaders:
    """Of a head in which no name comes twice, and which was read with its names in lower case."""

    _read: Mapping[bytes, bytes]

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, default: str, /) -> str: ...
    def get(self, key: str, default: str | None = None, /) -> str | None:
        value = self._read.get(key.lower().encode())
        return default if value is None else value.decode("latin1")


@attrs.frozen
class PlainRequest:
    """One that is answered without Quart."""

    method: str
    scheme: str
    path: str
    headers: PlainHeaders
    args: Mapping[str, str] = {}
    cookies: Mapping[str, str] = {}


answered: ContextVar[PlainRequest | None] = ContextVar("lobu_request", default=None)


def opening() -> Opening:
    """The current request, or the handshake of the current WebSocket."""
    if (plain := answered.get()) is not None:
        return plain
    from quart import has_websocket_context, request, websocket

    return websocket if has_websocket_context() else request


def parse_object(raw: bytes, settings: EdgeSettings) -> Json:
    """A JSON object within the limits. Raises Refusal 400."""
    try:
        return decode_object(raw, settings.max_json_depth)
    except BadText as error:
        raise Refusal(400, ApiError.INVALID_TEXT, str(error)) from None
    except BadShape as error:
        raise Refusal(400, ApiError.INVALID_FIELD, str(error)) from None
    except BadJson as error:
        raise Refusal(400, ApiError.INVALID_JSON, str(error)) from None


def text_field(body: Json, name: str, *, max_length: int = 200) -> str | None:
    """A short text, or None when it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= max_length:
        raise invalid_field(name, f"`{name}` must be a text of 1 to {max_length} characters.")
    return value


def flag_field(body: Json, name: str) -> bool:
    value: Any = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid_field(name, f"`{name}` must be true or false.")
    return value


def message_id_of(value: Any) -> str | None:
    """A client's messageId, checked; None when there is none."""
    if value is None:
        return None
    if not isinstance(value, str) or not is_message_id(value):
        raise invalid_field("messageId", "`messageId` must be 1 to 200 visible ASCII characters.")
    return value
