"""Cancel messages and answer questions: calls to the conversation's owner, on whatever host it is."""

from __future__ import annotations

from quart import Blueprint, Response

from edge.auth import Principal
from edge.body import read_object
from edge.errors import Refusal, invalid_field, owner_unreachable
from edge.request import message_id_of
from edge.responses import json_response
from edge.services import Services
from edge.wire import Json
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import is_message_id
from lobu_actors.gateway.protocol import CancelResult
from lobu_actors.store.question_records import AnswerOutcome
from lobu_actors.store.records import Conversation

MAX_ANSWER_CHARS = 100_000


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("control", __name__)

    @blueprint.post("/api/v1/agents/<key>/cancel")
    async def cancel(key: str) -> Response:
        _, conversation = await services.conversation(key)
        body = await read_object(services.settings, optional=True)
        return json_response(await cancel_messages(services, conversation, body), 202)

    @blueprint.post("/api/v1/agents/<key>/questions/<question_id>/answer")
    async def answer(key: str, question_id: str) -> Response:
        principal, conversation = await services.conversation(key)
        body = await read_object(services.settings)
        return json_response(await answer_question(services, principal, conversation, question_id, body))

    return blueprint


async def cancel_messages(services: Services, conversation: Conversation, body: Json) -> Json:
    """What becomes of a wish to cancel one message, or all that are owed. Raises Refusal."""
    message_id = message_id_of(body.get("messageId"))
    result = await services.gateway.cancel(conversation.ref, message_id)
    if result is CancelResult.UNREACHABLE:
        raise owner_unreachable()
    if result is CancelResult.ACCEPTED:
        return {"success": True, "stage": "accepted"}
    if message_id is not None and await services.store.find_turn(conversation.ref, message_id) is None:
        raise Refusal(404, ApiError.MESSAGE_NOT_FOUND, "This conversation has no such message.")
    return {"success": True, "stage": "nothing-to-cancel"}


async def answer_question(
    services: Services,
    principal: Principal,
    conversation: Conversation,
    question_id: str,
    body: Json,
    answer_id: str | None = None,
) -> Json:
    """Give a question its answer, unless another one was first. Raises Refusal."""
    text = body.get("answer")
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_ANSWER_CHARS:
        raise invalid_field("answer", f"`answer` must be a text of 1 to {MAX_ANSWER_CHARS} characters.")
    outcome = AnswerOutcome.NOT_FOUND
    if is_message_id(question_id):
        outcome = await services.store.answer_question(
            conversation.ref, question_id, answer=text, answered_by=principal.user_id, answer_id=answer_id
        )
    if outcome is AnswerOutcome.ALREADY_ANSWERED:
        raise Refusal(409, ApiError.QUESTION_ANSWERED, "This question was answered already.")
    if outcome is AnswerOutcome.WITHDRAWN:
        raise Refusal(409, ApiError.QUESTION_WITHDRAWN, "This question is not waited for any more: its turn ended.")
    if outcome is AnswerOutcome.NOT_FOUND:
        raise Refusal(404, ApiError.QUESTION_NOT_FOUND, "This conversation has no such question.")
    await services.gateway.answered(conversation.ref, question_id, text)
    return {"success": True}
