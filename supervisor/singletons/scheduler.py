"""Fires watchers: at each time of its schedule a watcher's text becomes an accepted turn in a conversation of its own.

A firing is first decided on (a fenced write), then accepted, then confirmed. Its conversation and message ids are made
of the watcher's id and the scheduled time, so whoever makes a decided firing again makes the same turn: exactly once,
whatever dies between. What was missed while nobody was up is made up for by one firing, of the latest time. Only the
database's clock says what is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef, new_id, watcher_conversation_key
from lobu_actors.store.errors import StoreRejected
from lobu_actors.store.protocol import Store
from lobu_actors.store.records import NewTurn, Refused
from lobu_actors.store.singleton_records import SingletonName
from supervisor.singletons.asking import ask
from supervisor.singletons.inbox import Inbox
from supervisor.singletons.schedule import Watcher
from supervisor.singletons.singleton import Hold

log = structlog.get_logger(__name__)

MAX_SLEEP_SECONDS = 30.0  # then the database's clock is looked at again: the two may drift
MIN_SLEEP_SECONDS = 0.01
USER_ID = "watcher"


def scheduler_name(organization_id: str) -> SingletonName:
    return SingletonName(organization_id, "scheduler", "watchers")


def run_id_of(scheduled_at: datetime) -> str:
    """`20261120T090000Z`."""
    return scheduled_at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def firing_of(organization_id: str, watcher: Watcher, scheduled_at: datetime) -> NewTurn:
    """The turn that a firing is, the same whoever makes it (its turn_id is its first acceptance's)."""
    run_id = run_id_of(scheduled_at)
    key = watcher_conversation_key(watcher.agent_id, watcher.id, run_id)
    return NewTurn(
        ref=ConversationRef(organization_id, watcher.agent_id, key),
        turn_id=new_id(),
        message_id=f"watcher:{run_id}",
        content=watcher.content,
        payload={"platform": "watcher", "watcherId": watcher.id, "scheduledAt": scheduled_at.isoformat()},
    )


class Scheduler:
    """The body of the scheduler's singleton."""

    def __init__(self, organization_id: str, watchers: Sequence[Watcher], store: Store, inbox: Inbox) -> None:
        self._organization_id = organization_id
        self._watchers = {watcher.id: watcher for watcher in watchers}
        self._store = store
        self._inbox = inbox

    async def run(self, hold: Hold) -> None:
        considered = await self._begin(hold)
        while True:
            now = await ask("now", self._store.now)
            for watcher in self._watchers.values():
                due = watcher.schedule.latest_due(considered[watcher.id], now)
                if due is not None:
                    claim = partial(self._store.claim_firing, hold.lease, watcher.id, due)
                    hold.check(await ask("claim_firing", claim))
                    await self._fire(hold, watcher, due)
                    considered[watcher.id] = due
            await trio.sleep(self._seconds_to_next(considered, now))

    async def _begin(self, hold: Hold) -> dict[str, datetime]:
        """Until when each watcher's times are dealt with; what a predecessor had decided on is made here."""
        schedules = {watcher.id: str(watcher.schedule) for watcher in self._watchers.values()}
        states = await ask("begin_watchers", partial(self._store.begin_watchers, hold.lease, schedules))
        hold.check(states is not None)
        for state in states or ():
            if state.pending_for is not None:
                await self._fire(hold, self._watchers[state.watcher_id], state.pending_for)
        return {state.watcher_id: state.considered_until for state in states or ()}

    async def _fire(self, hold: Hold, watcher: Watcher, scheduled_at: datetime) -> None:
        turn = firing_of(self._organization_id, watcher, scheduled_at)
        try:
            outcome = await self._inbox.take_in(turn, USER_ID)
        except StoreRejected as error:  # asking again is no use, and must not keep the others from firing
            log.error("watcher not fired", watcher=watcher.id, scheduled_at=str(scheduled_at), error=str(error))
            telemetry.WATCHER_FIRINGS.labels("rejected").inc()
        else:
            refused = outcome.reason if isinstance(outcome, Refused) else None
            telemetry.WATCHER_FIRINGS.labels(refused or ("fired" if outcome.created else "repeated")).inc()  # type: ignore[union-attr]
            log.info("watcher fired", watcher=watcher.id, conversation=turn.ref.conversation_id, refused=refused)
        confirm = partial(self._store.confirm_firing, hold.lease, watcher.id, scheduled_at)
        hold.check(await ask("confirm_firing", confirm))

    def _seconds_to_next(self, considered: dict[str, datetime], now: datetime) -> float:
        times = (watcher.schedule.next_after(considered[watcher.id]) for watcher in self._watchers.values())
        waits = ((time - now).total_seconds() for time in times if time is not None)
        return min(max(min(waits, default=MAX_SLEEP_SECONDS), MIN_SLEEP_SECONDS), MAX_SLEEP_SECONDS)
