"""The conversations of this host: their actors by key, and the gateway that an edge in this process calls.

Owns no state of a conversation. Everything said here is a hint or a question to an actor; what must not get lost was
committed before.
"""

from __future__ import annotations

from collections.abc import Collection, Container, KeysView
from contextlib import AbstractContextManager, suppress

import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.actor import ConversationActor
from lobu_actors.conversation.drain_messages import BeginAnew, DrainRequest
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.messages import (
    CancelRequest,
    CloseRequest,
    Message,
    Sweep,
    TurnAccepted,
)
from lobu_actors.conversation.question_messages import QuestionAnswered
from lobu_actors.conversation.session_messages import PurgeRequest
from lobu_actors.conversation.worker_port import SessionFileInvalid
from lobu_actors.gateway.feed import Feed
from lobu_actors.gateway.protocol import CancelResult, LiveStatus
from lobu_actors.gateway.standby import Standby
from lobu_actors.gateway.status import HostStatus
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.errors import RuntimeFault
from lobu_actors.runtime.intensity import Intensity
from lobu_actors.runtime.mailbox import Overflow
from lobu_actors.runtime.registry import Registry
from lobu_actors.runtime.tree import TreeNode
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.records import Owed, Turn
from supervisor.looking import Look

log = structlog.get_logger(__name__)

MAILBOX_CAPACITY = 1000
ASK_SECONDS = 10.0
HAND_OVER_SECONDS = 2.0
ACTOR_INTENSITY = Intensity(max_restarts=5, within_seconds=30.0)


class Conversations:
    """A supervised child, and the in-memory implementation of `Gateway`."""

    def __init__(self, environment: Environment, *, idle_seconds: float, max_actors: int) -> None:
        self._env = environment
        self._draining = False
        self.looking: Look | None = None
        self._registry: Registry[ConversationRef, Message] = Registry(
            self._actor,
            idle_seconds=idle_seconds,
            mailbox_capacity=MAILBOX_CAPACITY,
            overflow=Overflow.WAIT,
            max_actors=max_actors,
            intensity=ACTOR_INTENSITY,
            on_crash=_on_crash,
        )
        # Asked when somebody looks, so that it costs no message anything and falls when actors go.
        telemetry.ACTIVE_ACTORS.set_function(lambda: self._registry.active)

    async def run(self, context: ChildContext) -> None:
        await self._registry.run(context)

    def snapshot(self) -> TreeNode:
        """Without the actors: there may be very many, and they are told apart."""
        return self._registry.snapshot(max_children=0)

    @property
    def draining(self) -> bool:
        return self._draining

    def end_one_at_rest(self, refs: Container[ConversationRef]) -> None:
        """Have that of these actors passivate which has been at rest for longest with a worker that waits."""
        ref = self._env.standbys.longest_at_rest(refs)
        if ref is not None:
            self._env.standbys.withdraw(ref)  # another one is next, should another one be asked for at the same time
            self._registry.nudge(ref)

    async def stand_by(self, ref: ConversationRef) -> Standby | None:
        return await self._env.standbys.take(ref)

    async def accepted(self, turn: Turn) -> None:
        self._hint(turn.ref, TurnAccepted(turn))

    def sweep(self, owed: Owed) -> None:
        """A sweep's find. What an actor has a run for needs no waking: it looks at its queue when that ends."""
        if self._draining:
            return
        if owed.closing:
            self._hint(owed.ref, CloseRequest())
        elif not self._env.busy.has(owed.ref):
            self._hint(owed.ref, Sweep())

    def overdue(self, ref: ConversationRef) -> None:
        """A turn's owner let its deadline pass for long: end a stuck actor here, or take over from a stuck host."""
        if self._draining:
            return
        log.error("owner is stuck", conversation=ref.conversation_id, here=ref in self._registry)
        self._registry.kill(ref)
        self._hint(ref, Sweep(overdue=True))

    def active_refs(self) -> KeysView[ConversationRef]:
        """The conversations with an actor here, as they are at each moment."""
        return self._registry.keys()

    def give_up(self, ref: ConversationRef) -> None:
        """Another host has it: end its actor and its worker at once; what it owed is that host's."""
        self._registry.kill(ref)

    def open_feed(self, ref: ConversationRef) -> AbstractContextManager[Feed]:
        return self._env.feeds.reading(ref)

    async def cancel(self, ref: ConversationRef, message_id: str | None) -> CancelResult:
        result = await self._ask(ref, CancelRequest(message_id))
        return result if isinstance(result, CancelResult) else CancelResult.UNREACHABLE

    async def answered(self, ref: ConversationRef, question_id: str, answer: str) -> None:
        self._hint(ref, QuestionAnswered(question_id, answer))

    async def close(self, ref: ConversationRef) -> bool:
        return await self._ask(ref, CloseRequest()) is True

    async def live_status(self, ref: ConversationRef) -> LiveStatus:
        return LiveStatus(active=ref in self._registry, streams=self._env.feeds.readers(ref))

    async def look(self, organization_id: str) -> list[HostStatus]:
        return [self.look_here(organization_id)]

    async def session_bytes(self, ref: ConversationRef) -> bytes | None:
        if self._env.session_store == "snapshot" and ref not in self._env.live_sessions:
            return None
        try:
            read = await self._env.workspaces.of(ref).read_session()
        except (SessionFileInvalid, OSError) as error:
            log.warning("session file cannot be read", conversation=ref.conversation_id, error=str(error))
            return None
        return None if read is None else read[0]

    async def purge_snapshots(self, ref: ConversationRef, run_id: str) -> int | None:
        result = await self._ask(ref, PurgeRequest(run_id))
        return result if isinstance(result, int) else None

    def look_here(self, organization_id: str) -> HostStatus:
        assert self.looking is not None, "set with the parts that it looks at"
        return self.looking.status(organization_id, draining=self._draining)

    def depth(self, ref: ConversationRef) -> int:
        """How many messages wait for its actor."""
        return self._registry.depth(ref)

    def begin_drain(self) -> None:
        """Streams end with `drain`, readiness fails; nothing else changes yet."""
        self._draining = True
        self._env.feeds.wake_all()

    async def hand_over(self, grace_seconds: float) -> None:
        """Begin no run any more, and wait until those that run have ended, at most the grace. What runs longer is put
        back to the queue: by its actor when the grace ends, at the latest when the registry stops."""
        by = trio.current_time() + grace_seconds
        running_by = self._env.running.now() + grace_seconds
        self._env.patience.ends_at = by + HAND_OVER_SECONDS  # a store that is away must not hold the stop up
        for ref in list(self._registry.keys()):
            with suppress(RuntimeFault):  # a full mailbox: its actor hands over when it is stopped
                self._registry.tell_if_active(ref, DrainRequest(running_by))
        with trio.move_on_at(by + HAND_OVER_SECONDS):
            await self._env.busy.wait_none()

    def begin_anew(self, agents: Collection[str]) -> None:
        """These agents' configuration changed: have their conversations read it before their next turns."""
        for ref in list(self._registry.keys()):
            if ref.agent_id in agents:
                self.place_again(ref)

    def place_again(self, ref: ConversationRef) -> None:
        """Have its next turn begin in a new activation, here or elsewhere, with its agent as that is then."""
        try:
            self._registry.tell_if_active(ref, BeginAnew())
        except RuntimeFault as error:
            log.warning("does not begin anew", conversation=ref.conversation_id, error=str(error))

    def _actor(self, ref: ConversationRef) -> ConversationActor:
        return ConversationActor(ref, self._env, self._registry)

    def _hint(self, ref: ConversationRef, message: Message) -> None:
        try:
            self._registry.tell(ref, message)
        except RuntimeFault as error:
            telemetry.HINTS_DROPPED.inc()
            log.warning("hint dropped, the sweeper will find it", conversation=ref.conversation_id, error=str(error))

    async def _ask(self, ref: ConversationRef, message: Message) -> object:
        try:
            return await self._registry.ask(ref, message, ASK_SECONDS)
        except RuntimeFault as error:
            log.warning("actor did not answer", conversation=ref.conversation_id, error=str(error))
            return None


def _on_crash(ref: ConversationRef, error: BaseException) -> None:
    if isinstance(error, StoreUnavailable):  # for longer than it may wait, which in a drain is not for long
        log.warning("conversation let go, the store is away", conversation=ref.conversation_id, error=str(error))
        return
    telemetry.ACTOR_CRASHES.inc()
    log.error("conversation actor failed", conversation=ref.conversation_id, exc_info=error)
