"""OpenAI's addresses: agents are models, a message is a chat completion or a response.

Owns which headers name a conversation, and the form of refusals here. What a turn looks like is the encoders'.
"""

from __future__ import annotations

from collections.abc import Callable

from quart import Blueprint, Response, request

from edge.auth import Principal
from edge.body import read_object
from edge.dialects import following, openai_chat, openai_responses
from edge.dialects.encoder import Collector, Encoder, Head
from edge.dialects.following import Followed
from edge.dialects.messages import Asking, BadMessages
from edge.dialects.openai_errors import NO_RETRY, error_body, status_of, turn_error
from edge.dialects.openai_request import chat_request, responses_request
from edge.dialects.reply import CANCELLED, Cancelled, Failed
from edge.dialects.talk import Talk, digest, find_known_talk, find_talk
from edge.errors import Refusal, invalid_field
from edge.links import ALIAS_PREFIX
from edge.request import flag_field, opening, text_field
from edge.responses import json_response, refusal_of_any
from edge.services import Services
from edge.stream_response import stream_response
from edge.tenancy import may_use_agent
from edge.wire import Json
from lobu_actors.contract.errors import ApiError
from lobu_actors.store.errors import StoreOutcomeUnknown
from lobu_actors.store.records import Agent

CONVERSATION_HEADER = "X-Lobu-Conversation"
MESSAGE_HEADER = "X-Lobu-Message"
IDEMPOTENCY_HEADER = "Idempotency-Key"
_NAME_HEADERS = (CONVERSATION_HEADER, "X-OpenWebUI-Chat-Id", "X-Session-Id", "Session-Id")
_MAX_NAME_CHARS = 512


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("openai", __name__)

    @blueprint.get("/v1/models")
    async def models() -> Response:
        agents = await _agents(services)
        return json_response({"object": "list", "data": [_model(agent) for agent in agents]})

    @blueprint.get("/v1/models/<model>")
    async def model(model: str) -> Response:
        found = next((agent for agent in await _agents(services) if agent.agent_id == model), None)
        if found is None:
            raise Refusal(404, ApiError.AGENT_NOT_FOUND, "This organization has no such agent.")
        return json_response(_model(found))

    @blueprint.post("/v1/chat/completions")
    async def chat_completions() -> Response:
        principal = await services.authenticate()
        body = await read_object(services.settings)
        followed, talk = await _say(services, principal, body, chat_request, _name(body.get("conversation")))
        head = followed.head(may_ask=talk.named)
        if flag_field(body, "stream"):
            options = body.get("stream_options")
            with_usage = isinstance(options, dict) and options.get("include_usage") is True
            return _stream(followed, openai_chat.ChatStream(head, with_usage=with_usage))
        return await _whole(followed, head, lambda said: openai_chat.chat_completion(head, said))

    @blueprint.post("/v1/responses")
    async def responses() -> Response:
        principal = await services.authenticate()
        body = await read_object(services.settings)
        conversation = body.get("conversation")
        name = _name(conversation.get("id") if isinstance(conversation, dict) else conversation)
        followed, _ = await _say(services, principal, body, responses_request, name, _previous(body))
        # Each response has an id by which the next request finds the conversation, so every one may ask.
        head = followed.head()
        echo = {key: body[key] for key in ("previous_response_id", "instructions") if body.get(key) is not None}
        if flag_field(body, "stream"):
            return _stream(followed, openai_responses.ResponseStream(head, echo))
        return await _whole(followed, head, lambda said: openai_responses.response_object(head, echo, said))

    return blueprint


async def _agents(services: Services) -> list[Agent]:
    """Those that the caller may talk to, the default one first."""
    principal = await services.authenticate()
    agents = await services.store.list_agents(principal.organization_id)
    bound = principal.bound_to
    usable = [
        agent
        for agent in agents
        if not agent.disabled and (agent.agent_id == bound.agent_id if bound else may_use_agent(principal, agent))
    ]
    return sorted(usable, key=lambda agent: (not agent.is_default, agent.agent_id))


def _model(agent: Agent) -> Json:
    return {"id": agent.agent_id, "object": "model", "created": 0, "owned_by": agent.organization_id}


async def _say(
    services: Services,
    principal: Principal,
    body: Json,
    read: Callable[[Json], Asking],
    name: str | None,
    conversation_id: str | None = None,
) -> tuple[Followed, Talk]:
    agent_id = text_field(body, "model")
    if agent_id is None:
        raise invalid_field("model", "`model` must name an agent; GET /v1/models lists them.")
    flag_field(body, "stream")  # what is wrong is refused before anything begins
    try:
        asked = read(body)
    except BadMessages as error:
        raise invalid_field(error.field, str(error)) from None
    key = request.headers.get(IDEMPOTENCY_HEADER)
    once = f"once-{digest(key)}" if key else None
    if conversation_id is not None:
        talk = await find_known_talk(services, principal, agent_id, conversation_id)
    else:
        talk = await find_talk(services, principal, agent_id, _named_by_header() or name, single_use=once)
    return await following.say(services, talk, asked, once), talk


def _named_by_header() -> str | None:
    for header in _NAME_HEADERS:
        if value := request.headers.get(header, "").strip():
            return _name(value)
    return None


def _name(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_NAME_CHARS:
        raise invalid_field(
            "conversation", f"A conversation's name must be a text of 1 to {_MAX_NAME_CHARS} characters."
        )
    return value


def _previous(body: Json) -> str | None:
    value = text_field(body, "previous_response_id", max_length=2000)
    if value is None:
        return None
    conversation_id = openai_responses.conversation_of(value)
    if conversation_id is None:
        raise invalid_field("previous_response_id", "`previous_response_id` must be the `id` of an earlier response.")
    return conversation_id


def _stream(followed: Followed, encoder: Encoder) -> Response:
    response = stream_response(followed.by(encoder, cancels=True))
    response.headers.update(_place(followed))
    return response


async def _whole(followed: Followed, head: Head, render: Callable[[Collector], Json]) -> Response:
    collector = Collector(head)
    await followed.by(collector, cancels=True).finish()
    match collector.end:
        case Failed(code, message, _):
            body, status = {"error": turn_error(code, message)}, status_of(code)
        case Cancelled():
            body, status = {"error": turn_error(CANCELLED, "The turn was cancelled.")}, status_of(CANCELLED)
        case _:
            return json_response(render(collector), headers=_place(followed))
    return json_response(body, status, NO_RETRY | _place(followed))


def _place(followed: Followed) -> dict[str, str]:
    return {CONVERSATION_HEADER: followed.turn.ref.conversation_id, MESSAGE_HEADER: followed.turn.message_id}


def is_address(path: str) -> bool:
    """Whether OpenAI's clients may ask there, also for what is not to be had: all of `/v1` is theirs."""
    return f"{path.removeprefix(ALIAS_PREFIX)}/".startswith("/v1/")


def refused(error: Exception) -> Response:
    """What went wrong at such an address, as those clients read it."""
    refusal = refusal_of_any(error)
    headers = dict(refusal.headers)
    if isinstance(refusal.__cause__, StoreOutcomeUnknown) and not opening().headers.get(IDEMPOTENCY_HEADER):
        headers |= NO_RETRY  # the turn may be there: only by a key of its own could it be found again
    param = (refusal.details or {}).get("field")
    body = {"error": error_body(refusal.status, refusal.code.value, refusal.sentence, param)}
    return json_response(body, refusal.status, headers)
