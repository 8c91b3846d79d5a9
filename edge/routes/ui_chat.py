"""The addresses of pages that use Vercel's AI SDK: send, resume, stop. Named as its default transport asks for them."""

from __future__ import annotations

from quart import Blueprint, Response, request

from edge.body import read_object
from edge.dialects import following, ui_stream
from edge.dialects.following import Followed
from edge.dialects.messages import BadMessages
from edge.dialects.page_requests import ui_request
from edge.dialects.talk import digest, find_opened_talk, find_talk
from edge.errors import invalid_field, owner_unreachable
from edge.links import conversation_url
from edge.responses import json_response, no_content
from edge.services import Services
from edge.stream_response import stream_response
from lobu_actors.gateway.protocol import CancelResult

_CHAT = "/api/v1/ui/<agent_id>/chat"


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("ui_chat", __name__)

    @blueprint.post(_CHAT)
    async def chat(agent_id: str) -> Response:
        """A message of `useChat`, by the chat's id, and the reply as a UI message stream."""
        principal = await services.authenticate()
        body = await read_object(services.settings)
        try:
            wanted = ui_request(body)
        except BadMessages as error:
            raise invalid_field(error.field, str(error)) from None
        talk = await find_talk(services, principal, agent_id, wanted.chat)
        own = None
        if wanted.message_id is not None:
            own = "ui-" + digest(f"{wanted.message_id} {wanted.asking.content}")
        return _stream(services, await following.say(services, talk, wanted.asking, own))

    @blueprint.get(f"{_CHAT}/<chat_id>/stream")
    async def resume_chat(agent_id: str, chat_id: str) -> Response:
        """The reply that goes on, from its beginning; 204 when none does."""
        principal = await services.authenticate()
        talk = await find_opened_talk(services, principal, agent_id, chat_id)
        turn = None if talk is None else await services.store.find_owed_turn(talk.conversation.ref)
        if talk is None or turn is None:
            return no_content()
        if request.method == "HEAD":
            return stream_response(b"")
        return _stream(services, following.resume(services, talk, turn))

    @blueprint.post(f"{_CHAT}/<chat_id>/stop")
    async def stop_chat(agent_id: str, chat_id: str) -> Response:
        """Cancel what is owed. A page that only drops its stream cancels nothing: it may come back for it."""
        principal = await services.authenticate()
        talk = await find_opened_talk(services, principal, agent_id, chat_id)
        result = CancelResult.NOTHING_TO_CANCEL
        if talk is not None:
            result = await services.gateway.cancel(talk.conversation.ref, None)
        if result is CancelResult.UNREACHABLE:
            raise owner_unreachable()
        stage = "accepted" if result is CancelResult.ACCEPTED else "nothing-to-cancel"
        return json_response({"success": True, "stage": stage}, 202)

    return blueprint


def _stream(services: Services, followed: Followed) -> Response:
    url = conversation_url(services.settings, followed.turn.ref.conversation_id, "/questions/{}/answer")
    response = stream_response(followed.by(ui_stream.UiStream(followed.head(), url), cancels=False))
    response.headers[ui_stream.HEADER] = ui_stream.VERSION
    return response
