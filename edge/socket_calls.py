"""What goes over a conversation's WebSocket: the form of its messages, and a client's calls. Knows no connection.

A call has the fields and the answer of the HTTP address of the same purpose, and is checked as a request is, each
time anew: the credential, the caller's rate, the tenant.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog

from edge.auth import TICKET_ARGUMENT, Principal, bearer_credential
from edge.errors import Refusal, invalid_field, store_unavailable, unauthorized
from edge.messages import take_in
from edge.request import opening, parse_object, text_field
from edge.routes.control import answer_question, cancel_messages
from edge.routes.sessions import begin_anew
from edge.services import Services
from edge.sse import Encoding
from edge.wire import Json, encode
from lobu_actors.contract import events
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.events import EventType
from lobu_actors.contract.text import is_storable
from lobu_actors.gateway.feed import Outgoing
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.records import Conversation

_log = structlog.get_logger(__name__)

MAX_REF_CHARS = 200


def event_message(outgoing: Outgoing) -> bytes:
    """One event, on one line: its name, its id when a reader can resume from it, its data."""
    named: Json = {"event": outgoing.type.value}
    if outgoing.cursor is not None:
        named["id"] = str(outgoing.cursor)
    return encode(named | {"data": outgoing.data}) + b"\n"


def _first(agent_id: str, timestamp_ms: int, retry_ms: int) -> bytes:
    return event_message(Outgoing(EventType.CONNECTED, events.connected(agent_id, timestamp_ms), None))


# Pings are frames of the WebSocket protocol, so the keep-alive of an event stream is nothing here.
LINES = Encoding(_first, b"", event_message)


def reply_message(ref: str | None, status: int, body: Mapping[str, Any]) -> bytes:
    return encode({"reply": ref, "status": status, "body": body})


class Caller(msgspec.Struct, frozen=True):
    """Who opened the socket, asked again with each call."""

    services: Services
    key: str
    principal: Principal
    by_ticket: bool
    opened_at: float = msgspec.field(default_factory=time.time)

    @classmethod
    async def of_handshake(cls, services: Services, key: str) -> tuple[Caller, Conversation]:
        """Raises Refusal 401, 403, 404, 429; StoreUnavailable."""
        by_ticket = TICKET_ARGUMENT in opening().args and bearer_credential() is None
        principal, conversation = await services.conversation(key, by_ticket=True)
        return cls(services, key, principal, by_ticket), conversation

    async def again(self, *, fresh: bool) -> tuple[Principal, Conversation]:
        """The caller and the conversation of a call, as `Services.conversation` finds them for a request.

        A ticket was used up with the opening. What it opened may do what its user's conversation token may, and for
        as long.
        """
        if not self.by_ticket:
            return await self.services.conversation(self.key, fresh=fresh)
        if time.time() - self.opened_at > self.services.settings.token_lifetime_seconds:
            raise unauthorized("This socket's ticket is too old for calls; open another one.", ApiError.TICKET_EXPIRED)
        self.services.authenticate.again(self.principal)
        return self.principal, await self.services.tenancy.authorize(self.principal, self.key, fresh=fresh)


async def answer_call(caller: Caller, raw: str) -> bytes:
    """The reply to one call. Never raises for what the caller did."""
    ref: str | None = None
    try:
        body = parse_object(raw.encode("utf-8", "surrogatepass"), caller.services.settings)
        ref = text_field(body, "ref", max_length=MAX_REF_CHARS)
        status, answer = await _call(caller, body)
        return reply_message(ref, status, answer)
    except Refusal as refusal:
        return _refused(ref or _ref_in(raw), refusal)
    except StoreUnavailable as error:
        _log.warning("store unavailable", error=str(error))
        return _refused(ref, store_unavailable())
    except Exception:
        _log.exception("call over a socket failed")
        return _refused(ref, Refusal(500, ApiError.INTERNAL, "Something failed here; the operator's log says what."))


def _ref_in(raw: str) -> str | None:
    """The `ref` of a call that was refused before it was read: who waits for its reply knows no other name of it."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    ref = body.get("ref") if isinstance(body, dict) else None
    return ref if isinstance(ref, str) and 1 <= len(ref) <= MAX_REF_CHARS and is_storable(ref) else None


def _refused(ref: str | None, refusal: Refusal) -> bytes:
    return reply_message(ref, refusal.status, refusal.body())


async def _call(caller: Caller, body: Json) -> tuple[int, Json]:
    name = body.get("call")
    call = _CALLS.get(name) if isinstance(name, str) else None
    if call is None:
        raise invalid_field("call", f"`call` must be one of {', '.join(_CALLS)}.")
    fields = {name: value for name, value in body.items() if name not in {"call", "ref"}}
    return await call(caller, fields)


async def _send(caller: Caller, body: Json) -> tuple[int, Json]:
    _, conversation = await caller.again(fresh=False)
    return 200, await take_in(caller.services, conversation, body)


async def _cancel(caller: Caller, body: Json) -> tuple[int, Json]:
    _, conversation = await caller.again(fresh=True)
    return 202, await cancel_messages(caller.services, conversation, body)


async def _answer(caller: Caller, body: Json) -> tuple[int, Json]:
    question_id = body.get("questionId")
    if not isinstance(question_id, str):
        raise invalid_field("questionId", "`questionId` must be the one of the question's event.")
    principal, conversation = await caller.again(fresh=True)
    return 200, await answer_question(caller.services, principal, conversation, question_id, body)


async def _reset(caller: Caller, body: Json) -> tuple[int, Json]:
    _, conversation = await caller.again(fresh=False)
    return 200, await begin_anew(caller.services, conversation, body)


_CALLS: dict[str, Callable[[Caller, Json], Awaitable[tuple[int, Json]]]] = {
    "send": _send,
    "cancel": _cancel,
    "answer": _answer,
    "reset": _reset,
}
