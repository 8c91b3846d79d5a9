"""Answers in Quart's form: JSON, nothing, a refusal. Loaded with the routes; what is answered without Quart has
`edge.wire` and `edge.errors`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from quart import Response
from werkzeug.exceptions import HTTPException

from edge.errors import Refusal, refusal_of
from edge.wire import JSON_HEADERS, encode
from lobu_actors.contract.errors import ApiError

_BY_STATUS: dict[int, tuple[ApiError, str]] = {
    HTTPStatus.BAD_REQUEST: (ApiError.INVALID_FIELD, "The request could not be understood."),
    HTTPStatus.NOT_FOUND: (ApiError.NOT_FOUND, "There is nothing at this address."),
    HTTPStatus.METHOD_NOT_ALLOWED: (ApiError.METHOD_NOT_ALLOWED, "This address does not take that method."),
    HTTPStatus.REQUEST_TIMEOUT: (ApiError.BODY_TIMEOUT, "The request's body did not arrive in time."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (ApiError.BODY_TOO_LARGE, "The request's body is larger than is allowed."),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (ApiError.UNSUPPORTED_MEDIA_TYPE, "Send JSON with its Content-Type."),
}


def json_response(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    response = Response(encode(body), status, JSON_HEADERS)
    if headers:
        response.headers.update(dict(headers))
    return response


def no_content() -> Response:
    """204. Quart's own body for nothing at all asks for an asyncio loop, and takes the connection down."""
    response = Response(b"", 204)
    for header in ("Content-Type", "Content-Length"):
        response.headers.pop(header, None)
    return response


def refused(refusal: Refusal) -> Response:
    return json_response(refusal.body(), refusal.status, refusal.headers)


def refusal_of_any(error: Exception) -> Refusal:
    """As `refusal_of`, also of what Quart and Werkzeug raise: no such address, a method that it does not take, a body
    that is late or too large."""
    return _of_http(error) if isinstance(error, HTTPException) else refusal_of(error)


def _of_http(error: HTTPException) -> Refusal:
    status = error.code or 500
    code, sentence = _BY_STATUS.get(status, (ApiError.INVALID_FIELD, "The request cannot be served."))
    if status >= 500:
        code, sentence = ApiError.INTERNAL, "Something failed here; the operator's log says what."
    allowed = getattr(error, "valid_methods", None)
    headers = {"Allow": ", ".join(sorted(allowed))} if allowed else None
    return Refusal(status, code, sentence, headers=headers)
