"""How OpenAI's clients are told that something went wrong: one form before a stream and inside of it. Pure.

Those clients send a request again by themselves after 408, 409, 429 and 5xx. Where a turn exists already that would
make another one, so then the answer says `x-should-retry: false`, which they obey.
"""

from __future__ import annotations

from typing import Any

from lobu_actors.contract.errors import TURN_ERRORS, Fault, TurnError

Json = dict[str, Any]
NO_RETRY = {"x-should-retry": "false"}

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}
_STATUS_OF_FAULT = {Fault.CALLER: 400, Fault.AGENT: 502, Fault.PROVIDER: 502, Fault.OPERATOR: 500}
_STATUS = {TurnError.PROVIDER_QUOTA.value: 429, "CANCELLED": 409, "CONVERSATION_CLOSED": 409, "QUESTION_ASKED": 409}


def error_body(status: int, code: str, message: str, param: str | None = None) -> Json:
    """The `error` object; its type as the status would have it."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": message, "type": kind, "param": param, "code": code}


def status_of(code: str) -> int:
    """The HTTP status of a turn that ended with this code."""
    if code in _STATUS:
        return _STATUS[code]
    try:
        return _STATUS_OF_FAULT[TURN_ERRORS[TurnError(code)][0]]
    except ValueError:
        return 502 if code.isupper() else 500


def turn_error(code: str, message: str) -> Json:
    """The `error` object of a turn that failed."""
    return error_body(status_of(code), code, f"{message} ({code})", None)
