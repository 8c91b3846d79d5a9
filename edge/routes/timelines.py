"""When a turn did what: from its acceptance to its delivery. Times, names and codes, never what was written."""

from __future__ import annotations

from quart import Blueprint, Response

from edge.errors import Refusal
from edge.responses import json_response
from edge.services import Services
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import ConversationRef, is_message_id
from lobu_actors.store.timeline import timeline
from lobu_actors.store.timeline_protocol import TurnHistory


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("timelines", __name__)

    @blueprint.get("/api/v1/agents/<key>/turns/<turn_id>/timeline")
    async def show_timeline(key: str, turn_id: str) -> Response:
        """`turn_id` may be the message's own id too."""
        _, conversation = await services.conversation(key)
        found = await _find(services, conversation.ref, turn_id)
        if found is None:
            raise Refusal(404, ApiError.MESSAGE_NOT_FOUND, "This conversation has no such turn or message.")
        delivered = services.streams.deliveries.of(conversation.ref, found.message_id)
        return json_response(
            {
                "success": True,
                "turnId": found.turn_id,
                "messageId": found.message_id,
                "entries": [entry.to_json() for entry in timeline(found, delivered)],
            }
        )

    return blueprint


async def _find(services: Services, ref: ConversationRef, name: str) -> TurnHistory | None:
    if not is_message_id(name):  # no turn's id either
        return None
    if (found := await services.store.read_turn_history(ref, name)) is not None:
        return found
    turn = await services.store.find_turn(ref, name)
    return None if turn is None else await services.store.read_turn_history(ref, turn.turn_id)
