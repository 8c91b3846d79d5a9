"""How a refused request looks: one exception, one JSON form, one status. Knows nothing of routes.

Every failure of the HTTP interface leaves through here, so that no caller ever sees a traceback or an HTML page.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from quart import Response
from werkzeug.exceptions import HTTPException

from edge.wire import json_response
from lobu_actors.contract.errors import ApiError
from lobu_actors.store.errors import StoreUnavailable

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1

_BY_STATUS: dict[int, tuple[ApiError, str]] = {
    HTTPStatus.BAD_REQUEST: (ApiError.INVALID_FIELD, "The request could not be understood."),
    HTTPStatus.NOT_FOUND: (ApiError.NOT_FOUND, "There is nothing at this address."),
    HTTPStatus.METHOD_NOT_ALLOWED: (ApiError.METHOD_NOT_ALLOWED, "This address does not take that method."),
    HTTPStatus.REQUEST_TIMEOUT: (ApiError.BODY_TIMEOUT, "The request's body did not arrive in time."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (ApiError.BODY_TOO_LARGE, "The request's body is larger than is allowed."),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (ApiError.UNSUPPORTED_MEDIA_TYPE, "Send JSON with its Content-Type."),
}


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

    def response(self) -> Response:
        return json_response(self.body(), self.status, self.headers)


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
        case HTTPException():
            return _of_http(error)
    return _internal_failure(error)


def _of_http(error: HTTPException) -> Refusal:
    status = error.code or 500
    code, sentence = _BY_STATUS.get(status, (ApiError.INVALID_FIELD, "The request cannot be served."))
    if status >= 500:
        code, sentence = ApiError.INTERNAL, "Something failed here; the operator's log says what."
    allowed = getattr(error, "valid_methods", None)
    headers = {"Allow": ", ".join(sorted(allowed))} if allowed else None
    return Refusal(status, code, sentence, headers=headers)
