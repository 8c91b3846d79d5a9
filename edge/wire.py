"""JSON in and out of requests: decoding with its limits, encoding, and the checks of single fields.

Must not know routes or tenants. A decoded body holds only what Postgres, a worker and a reader can all hold: text
without NUL and lone surrogates, integers of 64 bits, bounded nesting.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from lobu_actors.contract.text import is_storable

JSON_TYPE = "application/json"
JSON_HEADERS = {"Content-Type": JSON_TYPE, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
Json = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class BadJson(ValueError):
    """Not JSON at all, or not an object."""


class BadText(ValueError):
    """JSON with NUL or a lone surrogate in it."""


class BadShape(ValueError):
    """JSON nested too deeply, or with a number that does not fit."""


def encode(value: Any) -> bytes:
    """JSON on one line. Numbers and text that the fast encoder refuses are written in the slow one's way."""
    try:
        return _encode(value)
    except (OverflowError, UnicodeEncodeError):
        return json.dumps(value, separators=(",", ":"), default=msgspec.to_builtins).encode()


def decode_object(raw: bytes, max_depth: int) -> Json:
    """Raises BadJson, BadText or BadShape, each with a sentence for the caller."""
    try:
        value = _decode(raw)
    except RecursionError:
        raise BadShape("The body is nested too deeply.") from None
    except (msgspec.DecodeError, ValueError) as error:
        if _has_bad_text(raw):
            raise BadText("The body holds a lone surrogate, which is not text.") from None
        raise BadJson(f"The body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise BadJson("The body must be a JSON object.")
    _check(value, max_depth, has_escapes=b"\\u" in raw)
    return value


def _has_bad_text(raw: bytes) -> bool:
    # The fast decoder gives one error for a lone surrogate and for broken syntax; the slow one lets the first pass.
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except RecursionError:
        return False
    return False


def _check(root: Json, max_depth: int, *, has_escapes: bool) -> None:
    """Without escapes, the decoder has refused already what no text may hold."""
    level: list[Any] = [root]
    for _ in range(max_depth):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if has_escapes:
                    for key in value:
                        _check_text(key)
                below.extend(value.values())
            else:
                below.extend(value)
        level = []
        for value in below:
            if isinstance(value, str):
                if has_escapes:
                    _check_text(value)
            elif isinstance(value, (dict, list)):
                level.append(value)
            elif type(value) is int and not -(1 << 63) <= value < 1 << 63:
                raise BadShape("The body holds an integer of more than 64 bits.")
        if not level:
            return
    raise BadShape("The body is nested too deeply.")


def _check_text(text: str) -> None:
    if not is_storable(text):
        raise BadText("The body holds a NUL character or a lone surrogate.")
