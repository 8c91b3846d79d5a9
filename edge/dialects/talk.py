"""Where a dialect's client talks: its agent, its conversation, and the question that may wait there for its answer.

A conversation has the name that the client gives it, so the same name is the same conversation in every dialect;
without a name it is a new one. Who may use it is decided where it always is: `edge.opening` and `edge.tenancy`.
"""

from __future__ import annotations

import hashlib

import msgspec

from edge.auth import Principal
from edge.errors import Refusal
from edge.opening import find_agent, place, require_own
from edge.services import Services
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.events import TERMINAL_EVENTS, EventType
from lobu_actors.contract.ids import is_conversation_key, is_id, new_id
from lobu_actors.store.protocol import ConversationStore
from lobu_actors.store.records import Conversation, Event

MAX_THREAD_CHARS = 64
LOOK_BACK_EVENTS = 64  # a question that waits has at most the ends of other messages behind it


class Talk(msgspec.Struct, frozen=True):
    """`named`: the client can come back to this conversation."""

    principal: Principal
    conversation: Conversation
    named: bool

    @property
    def fresh(self) -> bool:
        """Nothing was said here yet."""
        found = self.conversation
        return not (found.last_seq or found.queued or found.running)


async def find_talk(
    services: Services, principal: Principal, agent_id: str, name: str | None, *, single_use: str | None = None
) -> Talk:
    """The caller's conversation of that name with that agent, made if need be. `name` may also be a whole id.

    `single_use` is what a nameless one is called. Raises Refusal 403, 404, 409.
    """
    if principal.bound_to is not None:
        return await _bound(services, principal, agent_id, name)
    agent = await find_agent(services.store, principal, agent_id)
    if name is not None and name.startswith(f"{agent_id}_") and is_conversation_key(name):
        found = await services.store.find_conversation(principal.organization_id, name)
        if found is not None and found.ref.agent_id == agent_id and services.tenancy.permits(principal, found):
            return Talk(principal, found, named=True)
    ref = place(principal, agent, principal.user_id, _thread(name) if name else single_use or new_id())
    conversation = await services.store.open_conversation(ref, principal.user_id)
    require_own(conversation, ref, principal.user_id)
    return Talk(principal, conversation, named=name is not None)


async def find_known_talk(services: Services, principal: Principal, agent_id: str, conversation_id: str) -> Talk:
    """A conversation by its id, which must be there. Raises Refusal 403, 404."""
    conversation = await services.tenancy.authorize(principal, conversation_id)
    if conversation.ref.agent_id != agent_id:
        raise Refusal(404, ApiError.AGENT_NOT_FOUND, "That conversation is with another agent.")
    return Talk(principal, conversation, named=True)


async def find_opened_talk(services: Services, principal: Principal, agent_id: str, name: str) -> Talk | None:
    """The caller's conversation of that name if it was ever opened; makes none. Raises Refusal 403, 404."""
    if principal.bound_to is not None:
        return await _bound(services, principal, agent_id, name)
    agent = await find_agent(services.store, principal, agent_id)
    ref = place(principal, agent, principal.user_id, _thread(name))
    for key in (name, ref.conversation_id):
        known = is_conversation_key(key)
        found = await services.store.find_conversation(principal.organization_id, key) if known else None
        if found is not None and found.ref.agent_id == agent_id and services.tenancy.permits(principal, found):
            return Talk(principal, found, named=True)
    return None


async def _bound(services: Services, principal: Principal, agent_id: str, name: str | None) -> Talk:
    """What opens one conversation only has that one, whatever it is called."""
    assert principal.bound_to is not None
    conversation = await services.tenancy.authorize(principal, name or principal.bound_to.conversation_id)
    if conversation.ref.agent_id != agent_id:
        raise Refusal(404, ApiError.AGENT_NOT_FOUND, "This token's conversation is with another agent.")
    return Talk(principal, conversation, named=True)


def _thread(name: str) -> str:
    """A thread for any name; one that is fit stays as it is."""
    return name if len(name) <= MAX_THREAD_CHARS and is_id(name) else f"name-{digest(name)}"


def digest(text: str) -> str:
    """A name for a text that may be too long or unfit to be one itself."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:40]


async def find_question(store: ConversationStore, conversation: Conversation, question_id: str | None) -> Event | None:
    """The event of the newest question that waits for its answer; by its id, also when it does not wait any more."""
    first = max(1, conversation.last_seq - LOOK_BACK_EVENTS + 1)
    rows = await store.read_events(conversation.ref, first, limit=LOOK_BACK_EVENTS)
    if question_id is not None:
        return next((row for row in rows if row.type is EventType.QUESTION and _question_of(row) == question_id), None)
    waiting: dict[str, Event] = {}
    for row in rows:
        if row.type is EventType.QUESTION:
            waiting[row.data["questionId"]] = row
        elif row.type is EventType.QUESTION_ANSWERED:
            waiting.pop(row.data["questionId"], None)
        elif row.type is EventType.RESTART or row.type in TERMINAL_EVENTS:
            over = row.data["messageId"]
            waiting = {name: asked for name, asked in waiting.items() if asked.data["messageId"] != over}
    return next(reversed(waiting.values()), None)


def _question_of(row: Event) -> str:
    return str(row.data["questionId"])
