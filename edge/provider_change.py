"""A conversation whose provider changes begins a new session, and carries over what was said. Decides when; no more.

What one provider's model left in a session file, another's may not be able to read. So a message `/new` goes before
what asks for another provider: in its place in line, with one terminal event of its own. Its id is made from the
generation and the new provider, so that however often a change is asked for, it happens once. A conversation of which
no provider is known changes none: the first that is named is noted.
"""

from __future__ import annotations

import hashlib

from msgspec.structs import replace

from edge.services import Services
from lobu_actors.contract.ids import new_id
from lobu_actors.contract.new_session import CARRY_SUMMARY, NEW_SESSION, begins_session, provider_of
from lobu_actors.contract.states import OnBusy
from lobu_actors.store.records import Conversation, NewTurn


async def change_provider(
    services: Services, conversation: Conversation, provider: str, model: str | None, on_busy: OnBusy = OnBusy.ENQUEUE
) -> bool:
    """Accept the message that begins the new session, when `provider` is another one. Says whether it is.

    Raises StoreUnavailable. Where messages are refused at present, so is this: the next one asks again.
    """
    present = await _present_provider(services, conversation)
    if present is None:
        await services.store.name_provider(conversation.ref, provider)
        return False
    if present == provider:
        return False
    payload = {CARRY_SUMMARY: True, "provider": provider} | ({} if model is None else {"model": model})
    message_id = f"provider-{conversation.generation}-{hashlib.sha256(provider.encode()).hexdigest()[:32]}"
    turn = NewTurn(conversation.ref, new_id(), message_id, NEW_SESSION, on_busy, payload)
    await services.acceptance.accept(turn)
    return True


async def follow_provider(services: Services, remembered: Conversation, turn: NewTurn, provider: str) -> NewTurn:
    """Begin a new session before a message that names another provider's model. Gives the message as it goes on."""
    if begins_session(turn.content) or await services.store.find_turn(turn.ref, turn.message_id) is not None:
        return turn
    found = await services.store.find_conversation(turn.ref.organization_id, turn.ref.conversation_id)
    interrupts = turn.on_busy is OnBusy.INTERRUPT
    on_busy = OnBusy.INTERRUPT if interrupts else OnBusy.ENQUEUE
    if not await change_provider(services, found or remembered, provider, _model(turn), on_busy):
        return turn
    # It must not join a run of the session that ends.
    return turn if interrupts else replace(turn, on_busy=OnBusy.ENQUEUE)


async def _present_provider(services: Services, conversation: Conversation) -> str | None:
    named = conversation.provider or provider_of(conversation.model)
    if named is not None:
        return named
    agent = await services.store.find_agent(conversation.ref.organization_id, conversation.ref.agent_id)
    return None if agent is None else provider_of(agent.model)


def _model(turn: NewTurn) -> str | None:
    model = turn.payload.get("model")
    return model if isinstance(model, str) else None
