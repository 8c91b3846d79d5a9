"""What of our HTTP interface the load generator uses, as the rivals that are Python services have it; no framework."""

from __future__ import annotations

import hashlib
import hmac
import json
import os

KEY = os.environ.get("RIVAL_KEY", "")
PORT = int(os.environ.get("RIVAL_PORT", "0"))
DATABASE = os.environ.get("RIVAL_DATABASE", "")
MOST_WAITING = 1000  # events for one reader; behind that it is cut off and may come back
HERE = "/api/v1/agents"
REFUSED = {"success": False, "error": "the token is not right"}


def frame(event: str, number: int | None = None, **data: str) -> bytes:
    """`number`: the id that a reader comes back with; terminal events have one."""
    known = "" if number is None else f"id: {number}\n"
    return f"event: {event}\n{known}data: {json.dumps(data)}\n\n".encode()


def token_of(conversation: str) -> str:
    return hmac.new(KEY.encode(), conversation.encode(), hashlib.sha256).hexdigest()
