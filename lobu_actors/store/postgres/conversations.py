"""What an edge does, on Postgres: conversations, accepting turns, reading events and snapshots."""

from __future__ import annotations

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.store.errors import StoreDuplicate, StoreRejected
from lobu_actors.store.postgres.rows import (
    Params,
    Part,
    lease_params,
    ref_params,
    to_conversation,
    to_event,
    to_turn,
)
from lobu_actors.store.records import Accepted, Conversation, Event, NewTurn, Refused, Turn
from lobu_actors.store.snapshots import join_segments
from lobu_actors.store.standby_records import NextRun

ROUNDS = 5  # how often to look again when what refused a statement is gone by the time it is looked at


class ConversationPart(Part):
    """Implements `protocol.ConversationStore`."""

    async def open_conversation(
        self, ref: ConversationRef, user_id: str, *, model: str | None = None, provider: str | None = None
    ) -> Conversation:
        """Found first, since most are resumed. A closed one is reopened for its own agent and user only."""
        params = ref_params(ref) | {"user_id": user_id, "model": model, "provider": provider}
        for _ in range(ROUNDS):
            found = await self.find_conversation(ref.organization_id, ref.conversation_id)
            if found is None:
                rows = await self.write("insert_conversation_if_new", params)
                if rows:
                    return to_conversation(ref.organization_id, rows[0])
            elif found.closed and found.ref == ref and found.user_id == user_id:
                await self.write("reopen_conversation_if_closed", params)
            else:
                return found
        raise StoreRejected("the conversation is opened and closed too fast to be found")

    async def find_conversation(self, organization_id: str, conversation_id: str) -> Conversation | None:
        params = {"organization_id": organization_id, "conversation_id": conversation_id}
        rows = await self.read("find_conversation", params)
        return to_conversation(organization_id, rows[0]) if rows else None

    async def list_conversations(self, organization_id: str, *, limit: int) -> list[Conversation]:
        rows = await self.read("list_conversations", {"organization_id": organization_id, "limit": limit})
        return [to_conversation(organization_id, row) for row in rows]

    async def accept_turn(self, turn: NewTurn, *, max_owed: int, run: NextRun | None = None) -> Accepted | Refused:
        """One round trip when it is accepted. Accepts at the same moment may exceed `max_owed` by their number."""
        params = _run_params(turn.ref, run) | {
            "turn_id": turn.turn_id,
            "message_id": turn.message_id,
            "content": turn.content,
            "on_busy": turn.on_busy.value,
            "payload": turn.payload,
            "max_owed": max_owed,
            "file_ids": turn.file_ids or None,
            "guardrail_code": turn.verdict and turn.verdict.code,
            "guardrail_error": turn.verdict and turn.verdict.error,
            "guardrail_context": (turn.verdict and turn.verdict.context) or None,
        }
        files = "_with_files" if turn.file_ids else ""
        statement = f"accept_turns{files}_if_open_and_begin_runs_if_lease_held"
        for _ in range(ROUNDS):
            try:
                rows = await self.write_together(statement, turn.ref, params)
            except StoreDuplicate:
                if run is None:
                    raise
                run, params = None, params | _run_params(turn.ref, None)  # another one lives
                continue
            if rows:
                [(position, first_seq, accepted_at, begun)] = rows
                return Accepted(_new_turn(turn, position, first_seq, accepted_at), created=True, begun=begun)
            known = await self.find_turn(turn.ref, turn.message_id)
            if known is not None:
                return Accepted(known, created=False, begun=await self._has_begun(known, run))
            state = await self.read("explain_refusal", ref_params(turn.ref))
            if not state:
                return Refused("missing")
            [(closing, owed)] = state
            if closing:
                return Refused("closed")
            if owed and turn.on_busy is OnBusy.REJECT:
                return Refused("busy")
            if owed >= max_owed:
                return Refused("full")
        raise StoreRejected("this turn_id belongs to another message, or its files are not there")

    async def _has_begun(self, known: Turn, run: NextRun | None) -> bool:
        if run is None or known.status is not TurnStatus.RUNNING:
            return False
        params = lease_params(run.lease) | {"run_id": run.run_id, "turn_ids": [known.turn_id]}
        return bool(await self.read("find_started_run", params))

    async def find_turn(self, ref: ConversationRef, message_id: str) -> Turn | None:
        rows = await self.read("find_turn_by_message", ref_params(ref) | {"message_id": message_id})
        return to_turn(ref, rows[0]) if rows else None

    async def find_owed_turn(self, ref: ConversationRef) -> Turn | None:
        rows = await self.read("find_owed_turn", ref_params(ref))
        return to_turn(ref, rows[0]) if rows else None

    async def mark_closing(self, ref: ConversationRef) -> bool:
        return bool(await self.write("mark_closing", ref_params(ref)))

    async def read_events(self, ref: ConversationRef, from_seq: int, *, limit: int) -> list[Event]:
        rows = await self.read("read_events", ref_params(ref) | {"from_seq": from_seq, "limit": limit})
        return [to_event(ref, row) for row in rows]

    async def find_text_start(self, ref: ConversationRef, seq: int) -> int:
        rows = await self.read("find_text_start", ref_params(ref) | {"seq": seq})
        return rows[0][0] if rows else 0

    async def read_snapshot(self, ref: ConversationRef) -> bytes | None:
        return join_segments(await self.read("read_newest_snapshot", ref_params(ref), binary=True))


def _run_params(ref: ConversationRef, run: NextRun | None) -> Params:
    if run is None:
        return ref_params(ref) | dict.fromkeys(("host_id", "epoch", "run_id", "worker_pid", "worker_started_at"))
    process = {"worker_pid": run.worker_pid, "worker_started_at": run.worker_started_at}
    return lease_params(run.lease) | {"run_id": run.run_id} | process


def _new_turn(turn: NewTurn, position: int, first_seq: int, accepted_at: object) -> Turn:
    return Turn(
        turn.ref, turn.turn_id, turn.message_id, turn.content, turn.on_busy, turn.payload, TurnStatus.QUEUED,
        attempt=1, failures=0, position=position, first_seq=first_seq, accepted_at=accepted_at,  # type: ignore[arg-type]
        verdict=turn.verdict,
    )  # fmt: skip
