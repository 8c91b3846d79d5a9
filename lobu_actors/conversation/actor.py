"""The conversation's actor: takes the lease when first spoken to, then decides and applies, one message at a time.

One incarnation may go through several activations: when a lease is lost or a conversation closed, it forgets all, and
the next message takes the lease anew. It gives the lease back when it is passivated or its host stops.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import structlog
import trio

from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.apply import Effects
from lobu_actors.conversation.clocks import next_deadline
from lobu_actors.conversation.commit import until_known
from lobu_actors.conversation.decide import decide
from lobu_actors.conversation.drain_messages import BeginAnew, DrainRequest
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.standby_messages import LookAtStandby, StandbySettled, StandbyTaken
from lobu_actors.conversation.standing_by import stands_by
from lobu_actors.conversation.state import Moment, RunPhase, State, WorkerPhase, WorkerState
from lobu_actors.conversation.worker_port import Adopted, Worker, WorkerGone, WorkerReady, WorkerSignal
from lobu_actors.gateway.standby import Standby
from lobu_actors.runtime.actor import Actor
from lobu_actors.runtime.errors import ActorStopped, MailboxFull
from lobu_actors.runtime.registry import Registry
from lobu_actors.runtime.timers import Timer
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.moving import MOVED
from lobu_actors.store.records import Activation, HeldElsewhere, Lease, Turn
from lobu_actors.store.standby_records import NextRun

log = structlog.get_logger(__name__)

WORKER_GRACE_SECONDS = 2.0
TICK_AGAIN_SECONDS = 0.1


class ConversationActor(Actor[m.Message]):
    """`actors` is the registry that it lives in, through which it writes to itself."""

    def __init__(
        self, ref: ConversationRef, environment: Environment, actors: Registry[ConversationRef, m.Message]
    ) -> None:
        self._ref = ref
        self._env = environment
        self._actors = actors
        self._state: State | None = None
        self._effects: Effects | None = None
        self._lease: Lease | None = None
        self._timer: Timer | None = None
        self._standby: Standby | None = None
        self._next_run_id = new_id()
        self._ended = False
        self._crashed = False

    async def started(self) -> None:
        self._feed = self._env.feeds.hold(self._ref)
        MOVED.set(self._goes_on)  # in this actor's own task, for as long as it lives

    async def handle(self, message: m.Message) -> object:
        self._env.promises.begin(self._ref)
        try:
            return await self._handle(message)
        except BaseException:
            self._crashed = True
            raise
        finally:
            if self._effects is not None:
                self._effects.notes.flush()
            self._env.promises.end(self._ref)

    def ended(self) -> None:
        self._abandon()

    async def stopped(self) -> None:
        """Hand over: nothing of this conversation runs here when this returns or its bound has passed."""
        state, effects, lease = self._state, self._effects, self._lease
        self._abandon(grace_seconds=None if self._crashed else WORKER_GRACE_SECONDS)
        if self._crashed or state is None or effects is None or lease is None:
            # What a crash leaves is its successor's to judge, as a lost attempt: handing it over would repeat it.
            return
        with trio.move_on_after(self._env.handover_seconds):
            try:
                run, begun = state.run, self._begun_unheard()
                if run is not None and run.phase is RunPhase.STOPPING:
                    await effects.apply(m.FinishTurns(run.run_id, run.turns, TurnStatus.CANCELLED, RunStatus.CANCELLED))
                elif run is not None and run.phase is not RunPhase.FINISHING:
                    await effects.apply(m.RequeueTurns(run.run_id, run.turns, failed=False, code="HANDED_OVER"))
                elif begun is not None:
                    await effects.apply(m.RequeueTurns(*begun, failed=False, code="HANDED_OVER"))
                await self._env.store.release(lease)
                if state.owed or begun is not None:
                    await self._env.placement.released(self._ref)
            except StoreUnavailable as error:
                log.warning("not handed over, the lease runs out by itself", error=str(error))

    def may_passivate(self) -> bool:
        state = self._state
        if state is None:
            return True
        if self._standby is not None and self._standby.taken:
            return False
        starting = state.worker is not None and state.worker.phase is WorkerPhase.STARTING
        return state.run is None and not state.queue and not starting

    async def _handle(self, message: m.Message) -> object:
        pending: deque[m.Message] = deque()
        self._look_at_standby(pending)
        if (self._state is None or self._state.over) and not await self._activate(message, pending):
            return None
        if not isinstance(message, LookAtStandby):
            pending.append(message)
        reply: object = None
        assert self._state is not None
        assert self._effects is not None
        while pending:
            moment = Moment(self._env.running.now(), self._next_run_id)
            self._state, effects = decide(self._state, pending.popleft(), moment)
            if self._state.run is not None and self._state.run.run_id == self._next_run_id:
                self._next_run_id = new_id()
            results: list[m.Message] = []
            for effect in effects:
                if isinstance(effect, m.Reply):
                    reply = effect.value
                elif (result := await self._effects.apply(effect)) is not None:
                    results.append(result)
                    if isinstance(result, m.LeaseLost):
                        break
            pending.extendleft(reversed(results))
            self._env.busy.set(self._ref, self._state.run is not None or self._state.accepting)
            self._env.promises.note(self._state)
        if self._state.run is None:
            self._env.recent.forget(self._ref)
        if self._state.over:
            self._env.live_sessions.discard(self._ref)
            self._env.owners.gave_up(self._ref)
            if self._state.renewing or self._standby is not None:
                self._look_again()
            self._standby = None
        self._stand_by()
        self._set_timer()
        return reply

    def _stand_by(self) -> None:
        """Let the next message's acceptance begin its run, if nothing is in its way."""
        state, now = self._state, self._env.running.now()
        if state is None or state.worker is None or self._lease is None or not stands_by(state, now):
            self._env.standbys.withdraw(self._ref)
            return
        run = NextRun(self._lease, self._next_run_id, state.worker.pid, state.worker.started_at)
        self._standby = Standby(run, self._standby_settled)
        self._env.standbys.put(self._standby)

    def _look_at_standby(self, pending: deque[m.Message]) -> None:
        """Before anything is decided: take it back, or hear what has become of it."""
        standby = self._standby
        if standby is None:
            return
        if not standby.taken:
            self._env.standbys.withdraw(self._ref)
            self._standby = None
            return
        if standby.run.run_id == self._next_run_id:
            self._next_run_id = new_id()  # whatever has become of it, its id is used
        if not standby.settled:
            pending.append(StandbyTaken())
            return
        pending.append(StandbySettled(standby.run.run_id, standby.turn, standby.known))
        self._standby = None

    def _standby_settled(self, standby: Standby) -> bool:
        if self._ended or standby is not self._standby:
            return False
        with suppress(MailboxFull):  # else it looks when it comes to the next of so many
            self._actors.tell(self._ref, LookAtStandby())
        return True

    def _begun_unheard(self) -> tuple[str, tuple[Turn, ...]] | None:
        """A run that began with the acceptance of its turn, and this actor has not come to hear of it."""
        standby = self._standby
        if standby is None or not standby.settled or standby.turn is None:
            return None
        return standby.run.run_id, (standby.turn,)

    def _look_again(self) -> None:
        """At what is owed; the sweeper would find it, too, a little later."""
        with suppress(MailboxFull):
            self._actors.tell(self._ref, m.Sweep())

    async def _activate(self, message: m.Message, pending: deque[m.Message]) -> bool:
        """Take the lease. False: there is nothing to do here for this message."""
        if isinstance(message, WorkerSignal | m.Tick | LookAtStandby | DrainRequest | BeginAnew):
            if self._state is None or self._effects is None:
                return False  # a former activation's; what it owed is in the store
            if isinstance(message, WorkerSignal):  # `over`, but its worker's end is still of interest
                self._state, effects = decide(self._state, message, Moment(self._env.running.now(), self._next_run_id))
                for effect in effects:
                    await self._effects.apply(effect)
            return False
        overdue = isinstance(message, m.Sweep) and message.overdue
        begins = isinstance(message, m.TurnAccepted | m.Sweep) and not overdue
        if begins and await self._env.placement.goes_elsewhere(self._ref):
            return False
        activation = await until_known(
            "activate",
            lambda: self._env.store.activate(self._ref, self._env.host_id(), overdue=overdue),
            self._env.patience,
        )
        if not isinstance(activation, Activation):
            log.info("not ours", conversation=self._ref.conversation_id, found=repr(activation))
            if isinstance(activation, HeldElsewhere) and activation.host_id != self._env.host_id():
                self._env.owners.heard(self._ref, activation.host_id)
                self._env.not_ours(self._ref, activation.host_id, message)
            return False
        adopted = self._env.workers.adopt(self._ref, activation.live_run, self._deliver)
        self._begin(activation, None if adopted is None else adopted.worker)
        pending.append(m.Recovered(activation.owed, activation.live_run, _state_of(adopted) if adopted else None))
        return True

    def _begin(self, activation: Activation, worker: Worker | None) -> None:
        if self._effects is not None:
            self._effects.kill_worker()
        rules = self._env.agents.rules(activation.agent)
        self._state = State(
            ref=self._ref,
            deadlines=rules.deadlines,
            failure=rules.failure,
            limits=self._env.limits,
            has_agent=rules.runs,
            closing=activation.conversation.closing,
            draining=self._env.placement.draining,
        )
        self._lease = activation.lease
        self._effects = Effects(self._env, activation, self._feed, rules, self._deliver, worker)
        self._env.owners.took(self._ref, activation.lease.epoch)

    async def _deliver(self, signal: WorkerSignal) -> None:
        """Once this actor has ended, or its host stops, nobody is left to be told: what is owed is on record."""
        if isinstance(signal, WorkerReady | WorkerGone) and self._effects is not None:
            self._effects.heard(signal)
        if isinstance(signal, WorkerGone) and self._env.busy.has(self._ref):
            self._env.recent.gone(self._ref, self._env.clock_ms())
        if not self._ended:
            with suppress(ActorStopped):
                await self._actors.put(self._ref, signal)

    def _set_timer(self) -> None:
        """One timer an actor, at the earliest deadline. One that only moved later is found out when it fires."""
        deadline = None if self._state is None or self._state.over else next_deadline(self._state)
        at = None if deadline is None else self._env.running.look_at(deadline)
        if self._timer is not None and (at is None or self._timer.at > at):
            self._timer.cancel()
            self._timer = None
        if at is not None and self._timer is None:
            self._timer = self._env.timers.call_at(at, self._tick)

    def _goes_on(self) -> None:
        """A session of many megabytes may take minutes, and its actor is well."""
        self._env.promises.goes_on(self._ref, self._env.running.now())

    def _tick(self) -> None:
        self._timer = None
        if self._ended:
            return
        try:
            self._actors.tell(self._ref, m.Tick())
        except MailboxFull:
            self._timer = self._env.timers.call_at(trio.current_time() + TICK_AGAIN_SECONDS, self._tick)

    def _abandon(self, grace_seconds: float | None = None) -> None:
        """End the worker and hear no more of it. Safe at any moment, more than once."""
        if self._ended:
            return
        self._ended = True
        self._env.standbys.withdraw(self._ref)
        self._env.busy.set(self._ref, False)
        self._env.promises.drop(self._ref)
        self._env.recent.forget(self._ref)
        self._env.owners.gave_up(self._ref)
        self._env.live_sessions.discard(self._ref)
        if self._timer is not None:
            self._timer.cancel()
        if self._effects is not None:
            self._effects.end_output()
            if grace_seconds is None:
                self._effects.kill_worker()
            else:
                self._effects.shutdown_worker(grace_seconds)
        self._env.feeds.let_go(self._ref)


def _state_of(adopted: Adopted) -> WorkerState:
    return WorkerState(
        adopted.worker.worker_id, WorkerPhase.READY, adopted.capabilities, adopted.pid, adopted.started_at
    )
