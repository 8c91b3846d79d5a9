"""Who may use which conversation and agent: the one place where that is decided, by the stored organization and user.

A key is a name and proves nothing. What is another tenant's, or another user's, looks exactly like what does not exist.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from edge.auth import Principal
from edge.errors import Refusal, conversation_not_found
from edge.settings import EdgeSettings
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import is_conversation_key
from lobu_actors.contract.states import Role
from lobu_actors.store.listing_protocol import ListedConversation, ListingStore
from lobu_actors.store.protocol import ConversationStore, TenantStore
from lobu_actors.store.records import Agent, Conversation


class TenancyStore(ConversationStore, ListingStore, TenantStore, Protocol):
    """What deciding who may see what needs."""


class Tenancy:
    """Finds conversations for principals; remembers, bounded, which organization and user a known key belongs to."""

    def __init__(self, store: TenancyStore, settings: EdgeSettings) -> None:
        self._store = store
        self._capacity = settings.conversation_cache_entries
        self._seen: OrderedDict[tuple[str, str], Conversation] = OrderedDict()

    async def authorize(self, principal: Principal, key: str, *, fresh: bool = True) -> Conversation:
        """The conversation, if `principal` may use it.

        With `fresh=False` it may be an old record, of which only what never changes may be used: `ref` and `user_id`.
        Raises Refusal: 404 when it is not there for this principal, 403 when a token is bound to another one.
        """
        if principal.bound_to is not None and principal.bound_to.conversation_id != key:
            raise Refusal(403, ApiError.FORBIDDEN, "This token opens another conversation.")
        if not is_conversation_key(key):
            raise conversation_not_found()
        place = (principal.organization_id, key)
        conversation = None if fresh else self._seen.get(place)
        if conversation is None:
            conversation = await self._store.find_conversation(*place)
        if conversation is None or not self.permits(principal, conversation):
            raise conversation_not_found()
        self._remember(place, conversation)
        return conversation

    @staticmethod
    def permits(principal: Principal, conversation: Conversation) -> bool:
        """Whether `principal` may use a conversation that was found."""
        return _permitted(principal, conversation)

    async def conversations(self, principal: Principal, *, limit: int, newest: int) -> list[ListedConversation]:
        """The principal's own, an administrator's too: of the `newest` that it began, those that were active last."""
        if principal.bound_to is not None:
            limit = newest  # its own one may be any of them
        found = await self._store.list_conversations_of_user(
            principal.organization_id, principal.user_id, limit=limit, newest=newest
        )
        return [one for one in found if _permitted(principal, one.conversation)]

    async def agents(self, principal: Principal) -> list[Agent]:
        """Those that the principal may use."""
        found = await self._store.list_agents(principal.organization_id)
        return [agent for agent in found if may_use_agent(principal, agent) and not agent.disabled]

    def forget(self, conversation: Conversation) -> None:
        self._seen.pop((conversation.ref.organization_id, conversation.ref.conversation_id), None)

    def _remember(self, place: tuple[str, str], conversation: Conversation) -> None:
        self._seen[place] = conversation
        self._seen.move_to_end(place)
        if len(self._seen) > self._capacity:
            self._seen.popitem(last=False)


def may_use_agent(principal: Principal, agent: Agent) -> bool:
    """Whether `principal` may open conversations with it: one that has an owner is the owner's and administrators'.

    A conversation that is there already stays its user's, whoever the agent comes to belong to.
    """
    if agent.organization_id != principal.organization_id:
        return False
    if principal.bound_to is not None and principal.bound_to.agent_id != agent.agent_id:
        return False
    return principal.role is Role.ADMIN or agent.owner_user_id in (None, principal.user_id)


def may_operate(principal: Principal) -> bool:
    """Whether `principal` may look at how its organization's turns are run: an administrator, by a key of its own."""
    return principal.role is Role.ADMIN and principal.bound_to is None


def may_see_hosts(principal: Principal, own_organization_id: str) -> bool:
    """Whether that goes for the hosts themselves, which may serve others too: of the organization whose they are."""
    return may_operate(principal) and principal.organization_id == own_organization_id


def _permitted(principal: Principal, conversation: Conversation) -> bool:
    if conversation.ref.organization_id != principal.organization_id:
        return False
    if principal.bound_to is not None and conversation.ref != principal.bound_to:
        return False
    return principal.role is Role.ADMIN or conversation.user_id == principal.user_id
