"""A conversation's session: its messages, its numbers, and beginning a new one."""

from __future__ import annotations

from quart import Blueprint, Response, request

from edge.body import read_object
from edge.errors import Refusal, invalid_field
from edge.history import DEFAULT_LIMIT, MAX_LIMIT, BadCursor, page, parse_history_cursor, read_session, stats
from edge.intake import accept
from edge.messages import receipt
from edge.request import message_id_of
from edge.responses import json_response
from edge.services import Services
from edge.wire import Json
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import new_id
from lobu_actors.contract.new_session import NEW_SESSION
from lobu_actors.contract.session_file import ParsedSession
from lobu_actors.contract.states import OnBusy
from lobu_actors.store.errors import SnapshotCorrupt
from lobu_actors.store.records import Conversation, NewTurn


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("sessions", __name__)

    @blueprint.get("/api/v1/agents/<key>/session/messages")
    async def session_messages(key: str) -> Response:
        """`?cursor=&limit=`: what was said, oldest first. `nextCursor` stays good while the session grows."""
        _, conversation = await services.conversation(key)
        limit = _limit(request.args.get("limit"))
        try:
            given = request.args.get("cursor")
            cursor = None if given is None else parse_history_cursor(given)
            body = page(await _session(services, conversation), conversation.generation, cursor, limit)
        except BadCursor as error:
            raise Refusal(400, ApiError.INVALID_CURSOR, str(error), details={"field": "cursor"}) from None
        return json_response({"success": True, **body})

    @blueprint.get("/api/v1/agents/<key>/session/stats")
    async def session_stats(key: str) -> Response:
        """How much was said; tokens as far as the worker noted them."""
        _, conversation = await services.conversation(key)
        numbers = stats(await _session(services, conversation), conversation.generation)
        return json_response({"success": True, "stats": numbers})

    @blueprint.post("/api/v1/agents/<key>/reset")
    async def reset(key: str) -> Response:
        """Begin a new session: the same as sending `/new`. Durable when it is answered; `complete` follows."""
        _, conversation = await services.conversation(key, fresh=False)
        body = await read_object(services.settings, optional=True)
        return json_response(await begin_anew(services, conversation, body))

    return blueprint


async def begin_anew(services: Services, conversation: Conversation, body: Json) -> Json:
    """The receipt of the message that begins a new session. Raises Refusal."""
    message_id = message_id_of(body.get("messageId")) or new_id()
    turn = NewTurn(conversation.ref, new_id(), message_id, NEW_SESSION, on_busy=OnBusy.INTERRUPT)
    return receipt(services, await accept(services, conversation, turn))


async def _session(services: Services, conversation: Conversation) -> ParsedSession:
    try:
        return await read_session(services.store, services.gateway, conversation)
    except SnapshotCorrupt:
        sentence = "The stored session of this conversation is damaged; reset it."
        raise Refusal(409, ApiError.SESSION_DAMAGED, sentence) from None


def _limit(value: str | None) -> int:
    if value is None:
        return DEFAULT_LIMIT
    if not value.isascii() or not value.isdigit() or len(value) > 4 or not 1 <= int(value) <= MAX_LIMIT:
        raise invalid_field("limit", f"`limit` must be a whole number from 1 to {MAX_LIMIT}.")
    return int(value)
