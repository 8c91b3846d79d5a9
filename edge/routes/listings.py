"""What a page that people look at lists: who is signed in, agents, conversations, and the turns of one conversation.

Which of them a caller may see is decided by `edge.tenancy`. Nothing here changes anything.
"""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Response, request

from edge.errors import invalid_field
from edge.responses import json_response
from edge.services import Services
from edge.wire import Json
from lobu_actors.store.listing_protocol import ListedConversation, ListedTurn
from lobu_actors.store.records import Agent

CONVERSATIONS_LIMIT = 50
CONVERSATIONS_MOST = 200
LISTED_FROM = 500  # of a user's newest conversations, those that were active last are listed
TURNS_LIMIT = 30
TURNS_MOST = 100
PAGE_BYTES = 1 << 20
_NEWEST = (1 << 63) - 1


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("listings", __name__)

    @blueprint.get("/api/v1/session")
    async def who() -> Response:
        principal = await services.authenticate()
        answer: Json = {
            "success": True,
            "organizationId": principal.organization_id,
            "userId": principal.user_id,
            "role": principal.role.value,
            "boundTo": principal.conversation_id,
        }
        return json_response(answer)

    @blueprint.get("/api/v1/agents")
    async def agents() -> Response:
        found = await services.tenancy.agents(await services.authenticate())
        return json_response({"success": True, "agents": [_agent(agent) for agent in found]})

    @blueprint.get("/api/v1/conversations")
    async def conversations() -> Response:
        limit = _number("limit", CONVERSATIONS_LIMIT, CONVERSATIONS_MOST)
        principal = await services.authenticate()
        found = await services.tenancy.conversations(principal, limit=limit, newest=LISTED_FROM)
        return json_response({"success": True, "conversations": [_conversation(one) for one in found]})

    @blueprint.get("/api/v1/agents/<key>/turns")
    async def turns(key: str) -> Response:
        """Ended ones backwards, from `?before=`; without it also those that are owed."""
        _, conversation = await services.conversation(key)
        limit = _number("limit", TURNS_LIMIT, TURNS_MOST)
        before = _number("before", _NEWEST, _NEWEST)
        ref, most_owed = conversation.ref, services.settings.max_owed_turns
        # First: one that ends meanwhile is in both, and never in neither.
        owed = [] if "before" in request.args else await services.store.list_owed_turns(ref, limit=most_owed)
        ended = await services.store.list_ended_turns(ref, before_seq=before, limit=limit, max_bytes=PAGE_BYTES)
        known = {turn.turn_id for turn in ended}
        shown = [*reversed(ended), *(turn for turn in owed if turn.turn_id not in known)]
        oldest = ended[-1].ending if ended else None
        more = oldest is not None and bool(
            await services.store.list_ended_turns(ref, before_seq=oldest.seq, limit=1, max_bytes=1)
        )
        answer = {
            "success": True,
            "turns": [_turn(turn) for turn in shown],
            "before": oldest.seq if more and oldest is not None else None,
            # Whoever follows the stream from here misses nothing of what is owed, nor of what comes.
            "since": min([conversation.last_seq, *(turn.first_seq for turn in owed)]),
        }
        return json_response(answer)

    return blueprint


def _number(name: str, default: int, most: int) -> int:
    value = request.args.get(name)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or len(value) > 19 or not 1 <= int(value) <= most:
        raise invalid_field(name, f"`{name}` must be a whole number from 1 to {most}.")
    return int(value)


def _agent(agent: Agent) -> Json:
    return {"agentId": agent.agent_id, "isDefault": agent.is_default, "worker": agent.worker, "model": agent.model}


def _conversation(one: ListedConversation) -> Json:
    conversation = one.conversation
    return {
        "agentId": conversation.ref.conversation_id,
        "agent": conversation.ref.agent_id,
        "title": one.title,
        "createdAt": int(conversation.created_at.timestamp() * 1000),
        "lastActivity": int(conversation.last_activity_at.timestamp() * 1000),
        "queued": conversation.queued,
        "running": conversation.running,
    }


def _turn(turn: ListedTurn) -> Json:
    shown: dict[str, Any] = {
        "turnId": turn.turn_id,
        "messageId": turn.message_id,
        "content": turn.content,
        "status": turn.status.value,
        "attempt": turn.attempt,
        "acceptedAt": int(turn.accepted_at.timestamp() * 1000),
        "errorCode": turn.error_code,
        "seq": None,
        "end": None,
        "questions": [],
    }
    if turn.ending is not None:
        shown["seq"] = turn.ending.seq
        shown["end"] = {"event": turn.ending.type.value, "data": turn.ending.data}
        shown["questions"] = list(turn.ending.questions)
    return shown
