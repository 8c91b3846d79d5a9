"""Carries out one list of operations on several stores at once, and demands the same answer of all.

An operation is a name and three small numbers. Numbers choose among what there is by now, 0 the newest, so that any
list means something and a shorter list is a simpler one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import attrs
from msgspec.structs import replace

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import Alone, HostState, OnBusy, RunStatus, TurnStatus
from lobu_actors.store import records as r
from lobu_actors.store.link_records import Links, PeerLink
from lobu_actors.store.question_records import NewQuestion
from lobu_actors.store.standby_records import NextRun
from tests.properties.twin_calls import ALL_EXAMPLES, MOST, newest
from tests.properties.twin_files import FileOperations
from tests.properties.twin_tenants import TenantOperations

Operation = tuple[str, int, int, int]

HOST_SECONDS = 3600.0  # no host dies by itself in an example
EXPIRED = -1.0
OLD, ANY_AGE = 3600.0, -3600.0
_ENDINGS = (
    (RunStatus.COMPLETED, TurnStatus.COMPLETED),
    (RunStatus.FAILED, TurnStatus.FAILED),
    (RunStatus.TIMEOUT, TurnStatus.TIMEOUT),
    (RunStatus.CANCELLED, TurnStatus.CANCELLED),
)


@attrs.define(slots=False)
class Twins(FileOperations, TenantOperations):
    hosts: list[str] = attrs.field(factory=list)
    leases: list[r.Lease] = attrs.field(factory=list)
    runs: list[tuple[ConversationRef, str, list[str]]] = attrs.field(factory=list)
    questions: list[tuple[ConversationRef, str]] = attrs.field(factory=list)

    async def begin(self) -> None:
        """One conversation, held by the first of two hosts; a second one that nobody holds."""
        for organization in self.organizations:
            await self.call("ensure_organization", organization)
        for _ in range(2):
            await self.op_host(0, 0, 0)
        for number in (1, 0):
            await self.op_open(number, 0, 0)
        await self.op_activate(0, 0, 0)

    async def perform(self, operation: Operation) -> None:
        name, a, b, c = operation
        await OPERATIONS[name](self, a, b, c)

    # --- choosing

    def lease(self, a: int) -> r.Lease:
        return newest(self.leases, a)

    def turn_ids(self, ref: ConversationRef, a: int, number: int) -> tuple[str, ...]:
        known = [turn.turn_id for turn in self.turns if turn.ref == ref]
        found = [newest(known, a + n) for n in range(number)] if known else []
        return tuple(dict.fromkeys(found)) or ("no-such-turn",)

    def run_of(self, ref: ConversationRef, a: int) -> tuple[str, list[str]]:
        known = [(run_id, turn_ids) for of, run_id, turn_ids in self.runs if of == ref]
        return newest(known, a) if known else ("no-such-run", [])

    # --- what an edge does

    async def op_open(self, a: int, b: int, c: int) -> None:
        """b 3: the rival's, of the same name."""
        ref = ConversationRef(self.organizations[int(b == 3)], "echo", f"{self.organization}_c{a % 3}")
        model = f"m{c}" if c else None
        if await self.call("open_conversation", ref, f"u{b % 2}", model=model) and ref not in self.conversations:
            self.conversations.append(ref)

    async def op_accept(self, a: int, b: int, c: int) -> None:
        """c: how many files come with it; 3 is none, and little room."""
        ref = newest(self.conversations, a)
        turn = r.NewTurn(
            ref,
            self.fresh("t"),
            self.fresh("message"),
            "hello",
            on_busy=OnBusy.REJECT if b == 3 else OnBusy.ENQUEUE,
            payload={"a": [1, None], "b": c},
            file_ids=self.file_ids(ref, c % 3),
            verdict=r.Verdict("GUARDRAIL_REJECTED", "no", {"why": c} if c else None) if b == 2 else None,
        )
        if await self.write("accept_turn", turn, max_owed=2 if c == 3 else 100):
            self.turns.append(turn)

    async def op_accept_and_begin(self, a: int, b: int, c: int) -> None:
        """A message that begins its run, if nothing else is owed; and, b odd, the same asked again."""
        lease = self.lease(a)
        turn, run = r.NewTurn(lease.ref, self.fresh("t"), self.fresh("m"), "hello"), self.fresh("run")
        for _ in range(1 + b % 2):
            accepted = await self.write("accept_turn", turn, max_owed=100, run=NextRun(lease, run, 7, 2.5))
        if isinstance(accepted, r.Accepted):
            self.turns.append(turn)
            if accepted.begun:
                self.runs.append((lease.ref, run, [turn.turn_id]))

    async def op_accept_known(self, a: int, b: int, c: int) -> None:
        """A message or a turn id that is known already."""
        if self.turns:
            old = newest(self.turns, a)
            new = replace(old, turn_id=self.fresh("t")) if b % 2 else replace(old, message_id=self.fresh("m"))
            await self.write("accept_turn", new, max_owed=100)

    async def op_mark_closing(self, a: int, b: int, c: int) -> None:
        await self.call("mark_closing", newest(self.conversations, a))

    async def op_answer(self, a: int, b: int, c: int) -> None:
        if self.questions:
            ref, question_id = newest(self.questions, a)
            ref = ref if c != 3 else newest(self.conversations, b)
            given = {
                "answer": f"yes{b % 2}",
                "answered_by": "ann",
                "answer_id": None if b % 3 == 1 else f"of-{question_id}",
            }
            await self.write("answer_question", ref, question_id, **given)

    # --- hosts and leases

    async def op_host(self, a: int, b: int, c: int) -> None:
        """A new one, or one that is known; b 3: expired; c 3: it tolerates no other."""
        host_id = f"{self.organization}_{self.fresh('h')}" if a < 3 or not self.hosts else newest(self.hosts, c)
        if host_id not in self.hosts:
            self.hosts.append(host_id)
        seconds = EXPIRED if b == 3 else HOST_SECONDS
        alone = Alone.NOT_ALLOWED if c == 3 else None
        await self.call(
            "register_host", host_id, name="h", link_url=None, version="1", ttl_seconds=seconds, alone=alone
        )

    async def op_host_dies(self, a: int, b: int, c: int) -> None:
        await self.call("declare_host_dead", newest(self.hosts, a))

    async def op_renew(self, a: int, b: int, c: int) -> None:
        state = (HostState.ACTIVE, HostState.DRAINING)[b % 2]
        seconds = EXPIRED if c == 3 else HOST_SECONDS
        links = Links(a, b, (PeerLink("other", c < 2, 0.25 if c else None),) if b else ())
        await self.call("renew_host", newest(self.hosts, a), ttl_seconds=seconds, state=state, runs=b, links=links)

    async def op_forget_hosts(self, a: int, b: int, c: int) -> None:
        """c 3: those of all ages that are no more; else only those that never were here."""
        age = OLD if c < 3 else 0.0
        await self.call("delete_dead_hosts", older_than_seconds=age, limit=ALL_EXAMPLES)

    async def op_drain_host(self, a: int, b: int, c: int) -> None:
        await self.call("drain_host", newest(self.hosts, a))

    async def op_activate(self, a: int, b: int, c: int) -> None:
        got = await self.call("activate", newest(self.conversations, a), newest(self.hosts, b), overdue=c > 1)
        if isinstance(got, r.Activation):
            self.leases.append(got.lease)

    async def op_release(self, a: int, b: int, c: int) -> None:
        await self.call("release", self.lease(a))

    async def op_extend(self, a: int, b: int, c: int) -> None:
        """Deadlines of some turns in a run, in it or not; c 0 and 1: they have passed, by a time of their own each."""
        ref = newest(self.conversations, a)
        run_id, _ = self.run_of(ref, b // 2)
        deadlines = [
            r.MarkerDeadline(ref.organization_id, turn_id, run_id, (-1.0 if c < 2 else 1.0) * (100 + self.ids + n))
            for n, turn_id in enumerate(self.turn_ids(ref, b % 2, 2))
        ]
        self.ids += len(deadlines)
        await self.call("extend_deadlines", newest(self.hosts, int(c == 3)), deadlines)

    # --- what the owner does

    async def op_start(self, a: int, b: int, c: int) -> None:
        lease = self.lease(a)
        turn_ids, run_id = self.turn_ids(lease.ref, b, 1 + c % 2), self.fresh("run")
        attempt = 2 if c > 1 else 1
        restarts = tuple(events.restart(turn_id, attempt, "crash") for turn_id in turn_ids) if c > 1 else ()
        run = r.StartRun(run_id, turn_ids, attempt, 7, 2.5, restarts)
        if await self.write("start_run", lease, run) is not None:
            self.runs.append((lease.ref, run_id, list(turn_ids)))

    async def op_join(self, a: int, b: int, c: int) -> None:
        lease = self.lease(a)
        run_id, turn_ids = self.run_of(lease.ref, c)
        [turn_id] = self.turn_ids(lease.ref, b, 1)
        if await self.write("join_run", lease, run_id, turn_id):
            turn_ids.append(turn_id)

    async def op_leave(self, a: int, b: int, c: int) -> None:
        lease = self.lease(a)
        run_id, turn_ids = self.run_of(lease.ref, c)
        some = self.turn_ids(lease.ref, b, 2)
        if await self.write("leave_run", lease, run_id, some):
            turn_ids[1:] = [turn_id for turn_id in turn_ids[1:] if turn_id not in some]

    async def op_adopt(self, a: int, b: int, c: int) -> None:
        lease = self.lease(a)
        await self.write("adopt_run", lease, self.run_of(lease.ref, b)[0])

    async def op_request_cancel(self, a: int, b: int, c: int) -> None:
        lease = self.lease(a)
        await self.write("request_cancel", lease, self.run_of(lease.ref, b)[0])

    async def op_finish(self, a: int, b: int, c: int) -> None:
        """The run's turns end as they should."""
        lease = self.lease(a)
        run_id, turn_ids = self.run_of(lease.ref, c // 2)
        await self.write("finish_run", lease, await self._end(lease, run_id, tuple(turn_ids), b))

    async def op_finish_some(self, a: int, b: int, c: int) -> None:
        """Any turns, in no run or in any one."""
        lease = self.lease(a)
        run_id = None if c % 2 else self.run_of(lease.ref, c)[0]
        turn_ids = self.turn_ids(lease.ref, b, 1 + c // 2)
        await self.write("finish_run", lease, await self._end(lease, run_id, turn_ids, c))

    async def _end(self, lease: r.Lease, run_id: str | None, turn_ids: tuple[str, ...], kind: int) -> r.FinishRun:
        status, turn_status = _ENDINGS[0 if kind < 3 else (self.ids % 3) + 1]
        ends = []
        for turn_id in turn_ids or ("no-such-turn",):
            if status is RunStatus.COMPLETED:
                data, of = events.complete(turn_id, [turn_id], "done", {"tokens": 3}, 1), EventType.COMPLETE
            else:
                data, of = events.cancelled(turn_id, [turn_id], "do", 1), EventType.CANCELLED
            ends.append(r.TurnEnd(turn_id, of, data))
        segment = await self._segment(lease.ref, kind) if run_id is not None else None
        return r.FinishRun(
            run_id, status, turn_status, tuple(ends), segment=segment, usage={"tokens": 3}, attempt=1, text_offset=4,
            file_ids=self.file_ids(lease.ref, self.ids % 3), timeline=((-1.5, "lease", "epoch 1"), (0.5, "sent", None)),
        )  # fmt: skip

    async def _segment(self, ref: ConversationRef, kind: int) -> r.Segment | None:
        """0: a whole file; 1: a suffix of what is there; 2: none."""
        if kind % 4 == 2:
            return None
        found = await self.call("find_conversation", ref.organization_id, ref.conversation_id)
        base = (await self.call("read_snapshot", ref) or b"") if kind % 4 == 1 else b""
        data = self.fresh("line").encode() + b"\x00\xff\n"
        whole = base + data
        return r.Segment(found.generation, len(base), len(whole), hashlib.sha256(whole).hexdigest(), data)

    async def op_requeue(self, a: int, b: int, c: int) -> None:
        lease = self.lease(a)
        run_id, turn_ids = self.run_of(lease.ref, b // 2)
        named = run_id if b % 2 == 0 else None
        some = tuple(turn_ids) if c < 2 else self.turn_ids(lease.ref, b, c)
        run = r.RequeueRun(named, some, failed=c % 2 == 1, error_code="WORKER_CRASHED")
        await self.write("requeue_run", lease, run)

    async def op_mend(self, a: int, b: int, c: int) -> None:
        """Nothing is wrong with what stores wrote themselves."""
        lease = self.lease(a)
        await self.call("mend_markers", lease, self.turn_ids(lease.ref, b, 2))

    async def op_ask(self, a: int, b: int, c: int) -> None:
        lease = self.lease(a)
        run_id, turn_ids = self.run_of(lease.ref, b)
        question_id = self.fresh("q") if c < 3 or not self.questions else self.questions[-1][1]
        turn_id = turn_ids[0] if turn_ids else "no-such-turn"
        data = events.question(question_id, "Go on?", ["yes", "no"], turn_id)
        question = NewQuestion(question_id, f"of-{question_id}", run_id, turn_id, "Go on?", ("yes", "no"), data, 1, 0)
        if await self.write("ask_question", lease, question) is not None:
            self.questions.append((lease.ref, question_id))

    async def op_append(self, a: int, b: int, c: int) -> None:
        lease = self.lease(a)
        [turn_id] = self.turn_ids(lease.ref, b, 1)
        event = r.NewEvent(EventType.CANCEL, events.cancel(("asked", "sent")[c % 2], turn_id), turn_id)
        await self.write("append_event", lease, event)

    async def op_close(self, a: int, b: int, c: int) -> None:
        await self.write("close_conversation", self.lease(a), "asked")

    # --- sessions and retention

    async def op_reset(self, a: int, b: int, c: int) -> None:
        lease = self.lease(a)
        found = await self.call("find_conversation", lease.ref.organization_id, lease.ref.conversation_id)
        session = r.NewSession(
            max(found.generation - c // 2, 1), "before" if b % 2 else None, provider=f"p{c}" if c else None
        )
        await self.write("reset_session", lease, session)

    async def op_purge(self, a: int, b: int, c: int) -> None:
        await self.call("purge_snapshots", self.lease(a))

    async def op_post(self, a: int, b: int, c: int) -> None:
        ref = newest(self.conversations, a)
        await self.write("post_snapshot", ref, self.run_of(ref, b)[0], f"posted{c}".encode())

    async def op_discard(self, a: int, b: int, c: int) -> None:
        await self.call("discard_posted_snapshots", newest(self.conversations, a))

    async def op_name_provider(self, a: int, b: int, c: int) -> None:
        await self.call("name_provider", newest(self.conversations, a), f"p{b}")

    async def op_trim(self, a: int, b: int, c: int) -> None:
        age = OLD if c == 3 else ANY_AGE
        await self.call("trim", newest(self.conversations, a), older_than_seconds=age, limit=b or MOST)

    async def op_compact(self, a: int, b: int, c: int) -> None:
        await self.call("compact", newest(self.conversations, a))

    async def op_again(self, a: int, b: int, c: int) -> None:
        """What was called before, as after an unknown outcome or from a host that has lost."""
        if self.calls:
            method, arguments, named = newest(self.calls, a + 3 * b)
            await self.call(method, *arguments, **named)

    # --- all that can be seen

    async def op_compare(self, a: int, b: int, c: int) -> None:
        await self.compare_all()

    async def compare_all(self) -> None:
        for organization in self.organizations:
            await self.call("list_conversations", organization, limit=MOST)
            await self.call("totals", organization)
            await self.call("list_owed", organization, limit=MOST)
            for user_id in ("u0", "u1"):
                await self.call("list_conversations_of_user", organization, user_id, limit=MOST, newest=MOST)
        await self.compare_tenants()
        await self.compare_files()
        await self.call("list_hosts")
        await self.call("list_newest_hosts", limit=ALL_EXAMPLES)
        await self.call("find_loads")
        await self.call("find_overdue", limit=ALL_EXAMPLES)
        for host_id in [*self.hosts[-3:], "no-such-host"]:
            await self.call("find_held", host_id, self.conversations)
            await self.call("find_rivals", host_id)
            await self.call("find_owed", host_id, limit=ALL_EXAMPLES, older_than_seconds=0.0)
        for organization, age in itertools.product(self.organizations, (OLD, ANY_AGE)):
            before = ConversationRef(organization, "", "")
            await self.call("find_trimmable", before, older_than_seconds=age, max_segments=2, limit=10)
        for ref in self.conversations:
            await self.call("find_owner", ref)
            await self.call("find_conversation", ref.organization_id, ref.conversation_id)
            await self.call("find_owed_turn", ref)
            for first, limit in ((1, MOST), (3, 2)):
                await self.call("read_events", ref, first, limit=limit)
                await self.call("find_text_start", ref, limit)
            await self.call("read_snapshot", ref)
            await self.call("read_carried_summary", ref)
            await self.call("find_answers", ref, [question_id for _, question_id in self.questions])
            for _, question_id in self.questions:
                await self.call("find_answered_question", ref, f"of-{question_id}")
            await self.call("list_owed_turns", ref, limit=MOST)
            await self.call("list_ended_turns", ref, before_seq=MOST, limit=2, max_bytes=ALL_EXAMPLES)
        for turn in self.turns:
            await self.call("find_turn", turn.ref, turn.message_id)
            await self.call("read_turn_history", turn.ref, turn.turn_id)
        for ref, run_id, _ in self.runs:
            await self.call("is_run_live", ref, run_id)
            await self.call("read_posted_snapshot", ref, run_id)
        for lease in self.leases:
            await self.call("load_owed", lease, limit=MOST)

    async def hand_over(self) -> None:
        """All hosts die, and a new one learns what there is to do."""
        await self.op_host(0, 0, 0)
        for host_id in self.hosts[:-1]:
            await self.call("declare_host_dead", host_id)
        for ref in self.conversations:  # what the next owner would be told
            await self.call("activate", ref, self.hosts[-1])


OPERATIONS: dict[str, Callable[[Twins, int, int, int], Any]] = {
    name.removeprefix("op_"): getattr(Twins, name) for name in dir(Twins) if name.startswith("op_")
}
