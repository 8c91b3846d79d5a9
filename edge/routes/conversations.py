"""Open, show and end a conversation."""

from __future__ import annotations

from datetime import datetime

import msgspec
from quart import Blueprint, Response

from edge.auth import Principal
from edge.body import read_object
from edge.errors import Refusal, invalid_field
from edge.links import conversation_url
from edge.opening import find_agent, place, require_own
from edge.provider_change import change_provider
from edge.request import flag_field, text_field
from edge.responses import json_response
from edge.services import Services
from edge.wire import Json
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import MAX_ID_LENGTH, is_id, new_id
from lobu_actors.contract.new_session import provider_of
from lobu_actors.contract.states import Role
from lobu_actors.store.records import Conversation


class Opening(msgspec.Struct, frozen=True):
    """A checked request to open a conversation."""

    agent_id: str | None
    user_id: str
    thread: str | None
    model: str | None
    provider: str | None
    dry_run: bool


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("conversations", __name__)

    @blueprint.post("/api/v1/agents")
    async def open_conversation() -> Response:
        principal = await services.authenticate()
        opening = _opening(principal, await read_object(services.settings, optional=True))
        agent = await find_agent(services.store, principal, opening.agent_id)
        ref = place(principal, agent, opening.user_id, opening.thread)
        if opening.dry_run:
            there = await services.store.find_conversation(ref.organization_id, ref.conversation_id)
            if there is not None:
                require_own(there, ref, opening.user_id)
            answer = {"success": True, "dryRun": True, "agentId": ref.conversation_id, "threadId": opening.thread}
            return json_response(answer)
        conversation = await services.store.open_conversation(
            ref, opening.user_id, model=opening.model, provider=opening.provider
        )
        require_own(conversation, ref, opening.user_id)
        provider = opening.provider or provider_of(opening.model)
        if provider is not None and not conversation.closing:
            await change_provider(services, conversation, provider, opening.model)
        return json_response(_opened(services, conversation, opening.thread), 201)

    @blueprint.get("/api/v1/agents/<key>")
    async def show_conversation(key: str) -> Response:
        _, conversation = await services.conversation(key)
        live = await services.gateway.live_status(conversation.ref)
        streams = max(live.streams, services.streams.of(conversation.ref))
        return json_response({"success": True, "agent": _shown(conversation, streams)})

    @blueprint.delete("/api/v1/agents/<key>")
    async def end_conversation(key: str) -> Response:
        _, conversation = await services.conversation(key)
        closed = conversation.closed
        if not closed:
            await services.store.mark_closing(conversation.ref)
            services.tenancy.forget(conversation)
            closed = await services.gateway.close(conversation.ref)
        return json_response({"success": True, "closed": closed})

    return blueprint


def _opening(principal: Principal, body: Json) -> Opening:
    if principal.bound_to is not None:
        raise Refusal(403, ApiError.FORBIDDEN, "A conversation token opens no others; use an API key.")
    user_id = _id_field(body, "userId") or principal.user_id
    if principal.role is not Role.ADMIN and user_id != principal.user_id:
        raise Refusal(403, ApiError.FORBIDDEN, "This API key opens conversations of its own user only.")
    thread = _id_field(body, "thread")
    return Opening(
        agent_id=_id_field(body, "agentId"),
        user_id=user_id,
        thread=new_id() if flag_field(body, "forceNew") else thread,
        model=text_field(body, "model"),
        provider=text_field(body, "provider"),
        dry_run=flag_field(body, "dryRun"),
    )


def _id_field(body: Json, name: str) -> str | None:
    value = text_field(body, name, max_length=MAX_ID_LENGTH)
    if value is not None and not is_id(value):
        raise invalid_field(name, f"`{name}` may hold letters, digits and . _ : @ + - only, and begins with the first.")
    return value


def _opened(services: Services, conversation: Conversation, thread: str | None) -> Json:
    settings, key = services.settings, conversation.ref.conversation_id
    token, expires_at = services.keys.sign(conversation.ref, conversation.user_id, settings.token_lifetime_seconds)
    return {
        "success": True,
        "agentId": key,
        "token": token,
        "expiresAt": expires_at,
        # From here on: a client that connects late misses nothing of what it asks, and hears no old reply.
        "sseUrl": conversation_url(settings, key, f"/events?since={conversation.last_seq}"),
        "messagesUrl": conversation_url(settings, key, "/messages"),
        "threadId": thread,
    }


def _shown(conversation: Conversation, streams: int) -> Json:
    return {
        "agentId": conversation.ref.conversation_id,
        "userId": conversation.user_id,
        "status": _status(conversation),
        "createdAt": _epoch_ms(conversation.created_at),
        "lastActivity": _epoch_ms(conversation.last_activity_at),
        "hasActiveConnection": streams > 0,
        "queued": conversation.queued,
        "running": conversation.running,
    }


def _status(conversation: Conversation) -> str:
    if conversation.closed:
        return "closed"
    if conversation.closing:
        return "closing"
    if conversation.running:
        return "running"
    return "queued" if conversation.queued else "idle"


def _epoch_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
