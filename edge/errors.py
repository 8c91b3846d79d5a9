"""How a refused request looks: one exception, one JSON form, one status. Knows nothing of routes.

Every failure of the HTTP interface leaves through here, so that no caller ever sees a traceback or an HTML page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from lobu_actors.contract.errors import ApiError
from lobu_actors.store.errors import StoreUnavailable

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1


class Refusal(Exception):
    """A request is refused; nothing was accepted. Turned into the error form by the app."""

    def __init__(
        self,
        status: int,
        code: ApiError,
        sentence: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.sentence = sentence
        self.details = details
        self.headers = dict(headers or {})
        if retry_after_seconds is not None:
            self.headers["Retry-After"] = str(retry_after_seconds)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"success": False, "error": self.sentence, "code": self.code.value}
        if self.details:
            body["details"] = dict(self.details)
        return body


def invalid_field(field: str, sentence: str) -> Refusal:
    return Refusal(400, ApiError.INVALID_FIELD, sentence, details={"field": field})


def unauthorized(sentence: str, code: ApiError = ApiError.UNAUTHORIZED) -> Refusal:
    return Refusal(401, code, sentence, headers={"WWW-Authenticate": "Bearer"})


def conversation_not_found() -> Refusal:
    return Refusal(404, ApiError.CONVERSATION_NOT_FOUND, "There is no such conversation.")


def store_unavailable(details: Mapping[str, Any] | None = None) -> Refusal:
    return Refusal(
        503,
        ApiError.STORE_UNAVAILABLE,
        "The store cannot be reached just now; try again.",
        details=details,
        retry_after_seconds=_RETRY_SECONDS,
    )


def owner_unreachable() -> Refusal:
    return Refusal(
        503,
        ApiError.OWNER_UNREACHABLE,
        "The host that runs this conversation did not take the call in time; try again.",
        retry_after_seconds=_RETRY_SECONDS,
    )


_UNREADABLE = {
    400: "This cannot be read as a request, or as the handshake of a WebSocket.",
    431: "The request's head is larger than is allowed.",
    501: "Of the transfer codings only chunked is taken.",
    505: "Only HTTP/1 is spoken here.",
}


def unreadable(status: int) -> Refusal:
    """For what was refused before anybody could read it as a request."""
    return Refusal(status, ApiError.INVALID_REQUEST, _UNREADABLE.get(status, _UNREADABLE[400]))


def _store_away(error: StoreUnavailable) -> Refusal:
    """For a request that met this."""
    _log.warning("store unavailable", error=str(error))
    return store_unavailable()


def _internal_failure(error: Exception) -> Refusal:
    """For a request that failed by our own fault, which the log tells."""
    _log.error("request failed", exc_info=error)
    return Refusal(500, ApiError.INTERNAL, "Something failed here; the operator's log says what.")


def refusal_of(error: Exception) -> Refusal:
    """What a caller is told of anything that went wrong; what only the operator may know is logged."""
    match error:
        case Refusal():
            return error
        case StoreUnavailable():
            return _store_away(error)
    return _internal_failure(error)
