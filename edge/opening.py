"""Which agent a caller may use, and how the conversation of a user, an agent and a thread is called."""

from __future__ import annotations

from edge.auth import Principal
from edge.errors import Refusal, invalid_field
from edge.tenancy import may_use_agent
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import ConversationRef, conversation_key, is_conversation_key
from lobu_actors.store.protocol import Store
from lobu_actors.store.records import Agent, Conversation


async def find_agent(store: Store, principal: Principal, agent_id: str | None) -> Agent:
    """None: the organization's default one. Raises Refusal 404, also for another user's own."""
    agent = await store.find_agent(principal.organization_id, agent_id)
    if agent is None or not may_use_agent(principal, agent):
        raise _no_agent(agent_id)
    return agent


def place(principal: Principal, agent: Agent, user_id: str, thread: str | None) -> ConversationRef:
    """Raises Refusal 400 when the name would be too long."""
    key = conversation_key(agent.agent_id, user_id, principal.organization_id, thread)
    if not is_conversation_key(key):
        raise invalid_field("thread", "The ids are too long together.")
    return ConversationRef(principal.organization_id, agent.agent_id, key)


def require_own(conversation: Conversation, ref: ConversationRef, user_id: str) -> None:
    """Agent `a_b` of user `c`, and agent `a` of user `b_c`, would have one id; who came first has it.

    Raises Refusal 409.
    """
    if (conversation.ref, conversation.user_id) != (ref, user_id):
        sentence = "Another agent's or user's conversation has this id already; choose another thread."
        raise Refusal(409, ApiError.FORBIDDEN, sentence)


def _no_agent(agent_id: str | None) -> Refusal:
    if agent_id is None:
        sentence = "This organization has no default agent; name one as `agentId`."
        return Refusal(404, ApiError.NO_DEFAULT_AGENT, sentence)
    return Refusal(404, ApiError.AGENT_NOT_FOUND, "This organization has no such agent.")
