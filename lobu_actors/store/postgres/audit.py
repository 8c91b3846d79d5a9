"""Checks the invariants I1 to I7 against the rows. Reads only; the statements are in audit.sql and audit_runs.sql.

Not part of the store's protocol: it asks how Postgres keeps its promises, and memory has nothing to compare with.

A walk goes over one table in the order of its key, a batch at a time, so nothing here grows with the database; each
check is one statement about one batch, so on a system that works meanwhile it still compares what is of one moment.
Every list of broken rows is cut at a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from lobu_actors.store.driver import Connection, Row
from lobu_actors.store.pool import Pool
from lobu_actors.store.queries import query

BATCH_ROWS = 5000
BATCH_CONVERSATIONS = 500  # of snapshots, which are read whole
BATCH_BYTES = 32 * 1024 * 1024  # of snapshots; one that is larger makes a batch of its own
MAX_FINDINGS = 100  # of one check
SETTLED_SECONDS = 60.0  # how long a new owner may take to end what the last one left running
STATEMENT_SECONDS = 120.0  # one batch; a system under load is slower than an idle one
_LEAST = -(2**63)  # before every number

Params = dict[str, Any]


class Walk(msgspec.Struct, frozen=True):
    """`page` names the query that finds a batch's end; `start` is a key before the first row's."""

    page: str
    table: str
    start: tuple[str | int, ...]
    batch: int = BATCH_ROWS


class Check(msgspec.Struct, frozen=True):
    """`name` is the query's without `audit_`, and the name under which its rows are reported."""

    invariant: str
    name: str
    walk: Walk


class Finding(msgspec.Struct, frozen=True):
    """One broken promise: the row, and which check found it."""

    invariant: str
    check: str
    row: dict[str, Any]


@attrs.define
class Verdict:
    """One invariant: what was looked at, and what is broken. `cut`: there may be more than is listed."""

    invariant: str
    promise: str
    checked: Counter[str] = attrs.field(factory=Counter)  # rows, by table
    findings: list[Finding] = attrs.field(factory=list)
    cut: bool = False


PROMISES = {
    "I1": "each accepted turn has exactly one terminal event",
    "I2": "no terminal event without an accepted turn",
    "I3": "no write from an epoch that was over, or never was",
    "I4": "at most one live run a conversation",
    "I5": "snapshots of completed runs only, whole and unchanged",
    "I6": "event numbers without gap and duplicate",
    "I7": "same message id, same turn",
}

# Unique indexes that refuse what the checks would find.
GUARDS = {
    "I1": ["conversation_event_one_terminal", "turn_marker_pkey"],
    "I3": ["actor_lease_pkey"],
    "I4": ["run_one_live"],
    "I5": ["transcript_segment_pkey", "transcript_segment_order"],
    "I6": ["conversation_event_pkey"],
    "I7": ["turn_once_per_message", "turn_pkey"],
}

TURNS = Walk("audit_page_turn", "turn", ("", ""))
MARKERS = Walk("audit_page_turn_marker", "turn_marker", ("", ""))
MESSAGES = Walk("audit_page_message", "turn", ("", "", "", ""))
EVENTS = Walk("audit_page_conversation_event", "conversation_event", ("", "", "", _LEAST))
CONVERSATIONS = Walk("audit_page_conversation", "conversation", ("", "", ""))
RUNS = Walk("audit_page_run", "run", ("", ""))
SEGMENTS = Walk("audit_page_transcript_segment", "transcript_segment", ("", "", "", -(2**31), _LEAST))
SNAPSHOTS = Walk("audit_page_snapshot", "conversation", ("", "", ""), BATCH_CONVERSATIONS)

CHECKS = (
    Check("I1", "turn_ended_without_one_terminal", TURNS),
    Check("I1", "turn_ended_with_marker", TURNS),
    Check("I1", "turn_owed_without_marker", TURNS),
    Check("I1", "turn_contradicts_terminal", TURNS),
    Check("I4", "turn_running_without_live_run", TURNS),
    Check("I4", "turn_queued_in_run", TURNS),
    Check("I1", "marker_without_turn", MARKERS),
    Check("I7", "message_accepted_twice", MESSAGES),
    Check("I2", "terminal_without_turn", EVENTS),
    Check("I2", "terminal_of_another_turn", EVENTS),
    Check("I3", "event_of_later_epoch", EVENTS),
    Check("I3", "event_epoch_goes_back", EVENTS),
    Check("I6", "event_out_of_sequence", EVENTS),
    Check("I6", "next_event_seq", CONVERSATIONS),
    Check("I3", "run_of_later_epoch", RUNS),
    Check("I3", "run_ended_by_no_epoch", RUNS),
    Check("I3", "run_of_another_host", RUNS),
    Check("I4", "run_live_twice", RUNS),
    Check("I4", "run_live_without_debt", RUNS),
    Check("I4", "run_live_under_old_epoch", RUNS),
    Check("I5", "segment_without_completed_run", SEGMENTS),
    Check("I5", "segment_without_its_reply", SEGMENTS),
    Check("I5", "segment_out_of_place", SEGMENTS),
    Check("I5", "segment_does_not_follow", SEGMENTS),
    Check("I5", "snapshot_does_not_match", SNAPSHOTS),
)


class Audit:
    """One audit of one database, on a connection of its own. `batch_rows` bounds what a statement looks at."""

    def __init__(
        self,
        pool: Pool,
        *,
        batch_rows: int = BATCH_ROWS,
        settled_seconds: float = SETTLED_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
    ) -> None:
        self._pool = pool
        self._batch_rows = batch_rows
        self._settled_seconds = settled_seconds
        self._statement_seconds = statement_seconds

    async def run(self) -> list[Verdict]:
        """All invariants, in order. Raises StoreUnavailable, StoreRejected (the schema is another one)."""
        async with self._pool.connection() as connection:
            await self._fetch(connection, "prepare_audit_session", {})
            return await self._verdicts(connection)

    async def _verdicts(self, connection: Connection) -> list[Verdict]:
        verdicts = {name: Verdict(name, promise) for name, promise in PROMISES.items()}
        for name, guards in GUARDS.items():
            verdicts[name].checked["index"] += len(guards)
            await self._ask(connection, verdicts[name], "missing_guards", {"guards": guards})
        for walk in dict.fromkeys(check.walk for check in CHECKS):
            await self._walk(connection, walk, verdicts)
        return list(verdicts.values())

    async def _walk(self, connection: Connection, walk: Walk, verdicts: dict[str, Verdict]) -> None:
        checks = [check for check in CHECKS if check.walk is walk]
        limit = min(walk.batch, self._batch_rows)
        after = walk.start
        while True:
            page = await self._fetch(connection, walk.page, _key("a", after) | {"limit": limit, "bytes": BATCH_BYTES})
            if not page:
                return
            number, *last = page[0]
            for check in checks:
                batch = _key("a", after) | _key("u", last) | {"settled_seconds": self._settled_seconds}
                await self._ask(connection, verdicts[check.invariant], check.name, batch)
            for name in {check.invariant for check in checks}:
                verdicts[name].checked[walk.table] += number
            after = tuple(last)

    async def _ask(self, connection: Connection, verdict: Verdict, name: str, params: Params) -> None:
        room = MAX_FINDINGS - sum(finding.check == name for finding in verdict.findings)
        if room <= 0:
            return
        rows = await self._fetch(connection, f"audit_{name}", params | {"rows": room})
        verdict.cut |= len(rows) == room
        for organization_id, conversation_id, details in rows:
            place = {"organizationId": organization_id, "conversationId": conversation_id}
            known = {key: value for key, value in place.items() if value is not None}
            verdict.findings.append(Finding(verdict.invariant, name, known | details))

    async def _fetch(self, connection: Connection, name: str, params: Params) -> list[Row]:
        return await connection.fetch(query(name), params, timeout_seconds=self._statement_seconds, write=False)


def _key(letter: str, values: Sequence[str | int]) -> Params:
    return {f"{letter}{number}": value for number, value in enumerate(values, 1)}
