"""What a message as JSON is made into, and what its sender is told. Knows no request and no response."""

from __future__ import annotations

from edge import intake
from edge.errors import invalid_field
from edge.links import conversation_url, query_value
from edge.request import message_id_of
from edge.services import Services
from edge.wire import Json
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import OnBusy
from lobu_actors.store.records import FILES_KEY, Conversation, NewTurn, Turn

ADDRESS = "/api/v1/agents/<key>/messages"
_OWN_FIELDS = frozenset({"content", "message", "messageId", "onBusy"})
_OWN_WITHOUT_FILES = _OWN_FIELDS | {FILES_KEY}  # what workers are told of files is told by nobody but us


async def take_in(services: Services, conversation: Conversation, body: Json, file_ids: tuple[str, ...] = ()) -> Json:
    """The receipt of the message in `body`, once it is durable. Raises Refusal."""
    own = _OWN_FIELDS if file_ids else _OWN_WITHOUT_FILES
    turn = await intake.take_in(services, conversation, _new_turn(conversation.ref, body, own), file_ids)
    return receipt(services, turn)


def _new_turn(ref: ConversationRef, body: Json, own: frozenset[str]) -> NewTurn:
    content = body.get("content")
    if content is None:
        content = body.get("message")
    if not isinstance(content, str) or not content.strip():
        raise invalid_field("content", "`content` must be a text that is not empty.")
    return NewTurn(
        ref=ref,
        turn_id=new_id(),
        message_id=message_id_of(body.get("messageId")) or new_id(),
        content=content,
        on_busy=_on_busy(body.get("onBusy"), content),
        payload={name: value for name, value in body.items() if name not in own},
    )


def _on_busy(value: object, content: str) -> OnBusy:
    if value is None:
        return intake.default_on_busy(content)
    if not isinstance(value, str) or value not in OnBusy.__members__.values():
        raise invalid_field("onBusy", f"`onBusy` must be one of {', '.join(OnBusy)}.")
    return OnBusy(value)


def receipt(services: Services, turn: Turn) -> Json:
    """What the sender of an accepted message is answered."""
    key = turn.ref.conversation_id
    tail = f"/events?messageId={query_value(turn.message_id)}&since={turn.first_seq}"
    return {
        "success": True,
        "messageId": turn.message_id,
        "agentId": key,
        "turnId": turn.turn_id,
        "queued": True,
        "position": turn.position,
        "eventsUrl": conversation_url(services.settings, key, tail),
    }
