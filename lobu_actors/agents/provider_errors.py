"""What a provider's refusal means for the turn: which code it ends with, and whether asking again may help. Pure.

Owns the table from HTTP statuses and the providers' own error codes to the codes of `lobu_actors.contract.errors`.
"""

import json
import re
from typing import Any

from lobu_actors.contract.errors import TurnError

MAX_MESSAGE_CHARS = 500

_AUTH = frozenset({"invalid_api_key", "authentication_error", "invalid_authentication", "permission_error"})
_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_TOO_FAST = frozenset({"rate_limit_exceeded", "rate_limit_error", "requests", "tokens", "too_many_requests"})
_REFUSED = frozenset({"invalid_request_error", "context_length_exceeded", "model_not_found", "content_filter"})
_LATER = frozenset({408, 409, 425})
_STATUS = re.compile(r"(?<![\w.:/-])([45]\d\d)(?![\w./-])")
_WORDS = (  # of programs that tell of a failure in words of their own, in the order in which they count
    ("invalid_api_key", re.compile(r"api.?key|unauthori[sz]ed|authenticat|credential|log ?in", re.IGNORECASE)),
    ("insufficient_quota", re.compile(r"insufficient.quota|billing|credit balance|usage limit", re.IGNORECASE)),
    ("rate_limit_error", re.compile(r"rate.?limit|too many requests|overloaded.*later|quota", re.IGNORECASE)),
    ("context_length_exceeded", re.compile(r"context.(length|window)|content.?filter|too long|refus", re.IGNORECASE)),
)


class ProviderError(Exception):
    """The provider did not answer as asked.

    `may_retry`: the same request may succeed later, not before `after_seconds` if the provider named a time.
    """

    def __init__(self, code: str, message: str, *, may_retry: bool, after_seconds: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.may_retry = may_retry
        self.after_seconds = after_seconds


def of_status(status: int, body: Any, retry_after: str | None = None) -> ProviderError:
    """Of an answer other than 200. `body`: the parsed JSON, or None; `retry_after`: the header."""
    name, said = _read(body)
    return _error(status, name, said, _seconds(retry_after))


def of_event(error: Any) -> ProviderError:
    """Of an `error` in the middle of a stream, where some name a status and some a code or a type."""
    name, said = _read({"error": error})
    number = error.get("code", error.get("status")) if isinstance(error, dict) else None
    return _error(number if isinstance(number, int) else 0, name, said, None)


def of_text(text: str) -> ProviderError:
    """Of what another program says about it: a status if it has one, with the body behind it, else by its words."""
    found = _STATUS.search(text)
    names, said = _read(_json_in(text))
    if found is None and not names:
        names = frozenset(name for name, words in _WORDS if words.search(text))
    return _error(int(found[1]) if found else 0, names, said or text.strip()[:MAX_MESSAGE_CHARS], None)


def broken(what: str) -> ProviderError:
    """The connection could not be made, or its end came before the answer's."""
    return ProviderError(TurnError.PROVIDER_UNAVAILABLE, f"The model provider {what}.", may_retry=True)


def _error(status: int, name: frozenset[str], said: str, after_seconds: float | None) -> ProviderError:
    if status in (401, 403) or name & _AUTH:
        # What a provider says here may hold a part of the key: the log has it, the client does not.
        told = "The model provider refused the credentials; check the key and what it may use."
        return ProviderError(TurnError.PROVIDER_AUTH, told, may_retry=False)
    if status == 402 or name & _SPENT:
        return ProviderError(TurnError.PROVIDER_QUOTA, _told("quota is used up", said), may_retry=False)
    if status == 429 or name & _TOO_FAST:
        error = _told("takes no more requests for now", said)
        return ProviderError(TurnError.PROVIDER_QUOTA, error, may_retry=True, after_seconds=after_seconds)
    if status in _LATER or status >= 500 or not (status or name & _REFUSED):
        error = _told(f"answered {status}" if status else "reported an error", said)
        return ProviderError(TurnError.PROVIDER_UNAVAILABLE, error, may_retry=True, after_seconds=after_seconds)
    error = _told(f"refused the request with {status}" if status else "refused the request", said)
    return ProviderError(TurnError.PROVIDER_REFUSED, error, may_retry=False)


def _told(what: str, said: str) -> str:
    subject = "The model provider's" if what.startswith("quota") else "The model provider"
    return f"{subject} {what}: {said}" if said else f"{subject} {what}."


def _read(body: Any) -> tuple[frozenset[str], str]:
    """The names that an error goes by, and its text. `{"error": {…}}` is the dialect; `{"error": "…"}` is seen too."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, str):
        return frozenset(), error[:MAX_MESSAGE_CHARS]
    if not isinstance(error, dict):
        return frozenset(), ""
    names = frozenset(value for value in (error.get("code"), error.get("type")) if isinstance(value, str))
    said = error.get("message")
    return names, said[:MAX_MESSAGE_CHARS] if isinstance(said, str) else ""


def _json_in(text: str) -> Any:
    """The JSON object that a text ends with; None when there is none."""
    start = text.find("{")
    try:
        return json.loads(text[start:]) if start >= 0 else None
    except (ValueError, RecursionError):
        return None


def _seconds(retry_after: str | None) -> float | None:
    """A `Retry-After` in seconds; one that is a date counts as none."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
