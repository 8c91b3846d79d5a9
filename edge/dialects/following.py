"""One turn for one client: its message accepted or its answer given, and the turn followed to its end.

The order matters. A place among the streams is taken first, since a refusal after the turn exists would make clients
send the message again. Whoever goes away before the end has its turn cancelled, in dialects that have no other word for
it; a server that goes away cancels nothing.
"""

from __future__ import annotations

import msgspec

from edge.dialects.encoder import NO_END, Encoder, Head
from edge.dialects.messages import Asking
from edge.dialects.talk import Talk, find_question
from edge.errors import Refusal, owner_unreachable
from edge.intake import default_on_busy, take_in
from edge.routes.control import answer_question
from edge.services import Services
from edge.sse import Encoding
from edge.stream_response import PulledBody
from edge.streams import Place
from edge.subscription import StreamBroken, Subscription
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.events import Cursor
from lobu_actors.contract.ids import new_id
from lobu_actors.gateway.feed import Feed
from lobu_actors.gateway.protocol import CancelResult
from lobu_actors.store.records import Conversation, Event, NewTurn, Turn

BROKEN = "STREAM_BROKEN"
_RETRY_SECONDS = 1


class Followed(msgspec.Struct, frozen=True):
    """A turn that is to be followed, from `start`; None: from its beginning."""

    services: Services
    conversation: Conversation
    turn: Turn
    place: Place
    feed: Feed
    start: Cursor | None = None
    before: int = 0  # code points of its text that were shown before `start`

    def head(self, *, may_ask: bool = True) -> Head:
        turn = self.turn
        return Head(
            message_id=turn.message_id,
            turn_id=turn.turn_id,
            agent_id=turn.ref.agent_id,
            conversation_id=turn.ref.conversation_id,
            created_ms=int(turn.accepted_at.timestamp() * 1000),
            before=self.before,
            may_ask=may_ask,
        )

    def by(self, encoder: Encoder, *, cancels: bool) -> Following:
        """`cancels`: a client that goes away before the end wants no more of the turn."""
        if cancels and self.services.settings.cancel_on_disconnect:
            self._cancel_unless_settled(encoder)
        subscription = Subscription(
            self.conversation,
            self.services.store,
            self.feed,
            self.services.settings,
            start=self.start,
            turn=self.turn,
            draining=lambda: self.place.over,  # a host that drains lets its turns finish first
            encoding=Encoding(lambda *_: encoder.begin(), encoder.ping, encoder.event, enough=lambda: encoder.ended),
        )
        return Following(subscription, encoder)

    def _cancel_unless_settled(self, encoder: Encoder) -> None:
        services, turn = self.services, self.turn

        async def cancel() -> None:
            if not encoder.settled and not services.draining():
                await services.gateway.cancel(turn.ref, turn.message_id)

        services.afterwards(cancel)


class Following(PulledBody):
    """The bytes for the client, as a response body or all at once. They end with the dialect's own end, always."""

    def __init__(self, subscription: Subscription, encoder: Encoder) -> None:
        self._subscription = subscription
        self._encoder = encoder

    async def __anext__(self) -> bytes:
        if self._encoder.ended:
            raise StopAsyncIteration
        try:
            chunk = await self._subscription.next_chunk()
        except StreamBroken:
            return self._encoder.fail(BROKEN, "The reply cannot be followed any more; it may still come.")
        if chunk is None:
            return self._encoder.fail(NO_END, "The reply's end is not known any more.")
        return chunk

    async def finish(self) -> None:
        """Follow to the end and send nothing."""
        async for _ in self:
            pass


async def say(services: Services, talk: Talk, asked: Asking, message_id: str | None) -> Followed:
    """Accept the message; or, when the agent waits for an answer, take it for that. Raises Refusal.

    `message_id`: the client's own for this request; the same again gives the same turn, and never a second one, also
    when it was taken for an answer.
    """
    place, feed = _attach(services, talk.conversation)
    ref = talk.conversation.ref
    known = await services.store.find_turn(ref, message_id) if message_id is not None else None
    if known is not None:
        return Followed(services, talk.conversation, known, place, feed)
    question = await _answered_or_waiting(services, talk, message_id)
    if question is not None:
        return await _answer(services, talk, question, asked.content, place, feed, message_id)
    turn = NewTurn(
        ref=ref,
        turn_id=new_id(),
        message_id=message_id or new_id(),
        content=asked.content,
        on_busy=default_on_busy(asked.content),
        payload=asked.payload_of(fresh=talk.fresh),
    )
    return Followed(services, talk.conversation, await take_in(services, talk.conversation, turn), place, feed)


async def _answered_or_waiting(services: Services, talk: Talk, message_id: str | None) -> Event | None:
    """The question whose answer this message is: it was taken for that before, or one waits now."""
    if message_id is not None and not talk.fresh:
        answered = await services.store.find_answered_question(talk.conversation.ref, message_id)
        if answered is not None:
            return await find_question(services.store, talk.conversation, answered)
    return await find_question(services.store, talk.conversation, None) if talk.conversation.running else None


async def answer(services: Services, talk: Talk, question_id: str, text: str | None) -> Followed:
    """Answer this question, or with None cancel the turn that asks. Raises Refusal 404, 409."""
    place, feed = _attach(services, talk.conversation)
    question = await find_question(services.store, talk.conversation, question_id)
    if question is None:
        raise Refusal(404, ApiError.QUESTION_NOT_FOUND, "This conversation has no such question.")
    return await _answer(services, talk, question, text, place, feed)


def resume(services: Services, talk: Talk, turn: Turn) -> Followed:
    """Follow a turn that goes on, from its beginning. Raises Refusal 429."""
    return Followed(services, talk.conversation, turn, *_attach(services, talk.conversation))


async def _answer(
    services: Services,
    talk: Talk,
    question: Event,
    text: str | None,
    place: Place,
    feed: Feed,
    answer_id: str | None = None,
) -> Followed:
    ref = talk.conversation.ref
    turn = await services.store.find_turn(ref, question.data["messageId"])
    if turn is None:
        raise Refusal(404, ApiError.QUESTION_NOT_FOUND, "This conversation has no such question.")
    if text is not None:
        question_id = question.data["questionId"]
        await answer_question(services, talk.principal, talk.conversation, question_id, {"answer": text}, answer_id)
    elif await services.gateway.cancel(ref, turn.message_id) is CancelResult.UNREACHABLE:
        raise owner_unreachable()
    start, before = Cursor(question.seq), question.text_offset or 0
    return Followed(services, talk.conversation, turn, place, feed, start, before)


def _attach(services: Services, conversation: Conversation) -> tuple[Place, Feed]:
    """Raises Refusal 429, and 503 of a server that goes away: another one can serve, and nothing has begun here."""
    if services.draining():
        sentence = "This server is going away; send the request again."
        raise Refusal(503, ApiError.DRAINING, sentence, retry_after_seconds=_RETRY_SECONDS)
    held = services.held()
    place = held.enter_context(services.streams.place(conversation.ref))
    place.feed = held.enter_context(services.gateway.open_feed(conversation.ref))
    return place, place.feed
