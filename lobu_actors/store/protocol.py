"""The store as its callers see it. Two implementations pass one conformance suite: `postgres` and `memory`.

Authority: `accept_turn` is the only way in; `finish_run` is the only way out, and the only writer of terminal events.
Methods that take a `Lease` write nothing unless, in the same statement, the lease row still names that host and epoch;
they return None when it does not ("we lost"), and the caller must stop. Nothing is checked first and written later.

Failure: any method may raise StoreUnavailable (nothing happened) and every write StoreOutcomeUnknown (it may have).
Each write has a key by which it can be asked for again: `accept_turn` (message_id), `start_run` and `requeue_run`
(run_id), `finish_run` (turn ids, run_id), `reset_session` (generation), `use_ticket` (use_id): calling it again with
the same arguments gives the same result as the first.
Every call has a deadline; callers may cancel at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.link_protocol import LinkStore
from lobu_actors.store.listing_protocol import ListingStore
from lobu_actors.store.membership_protocol import MembershipStore
from lobu_actors.store.owed_protocol import OwedStore
from lobu_actors.store.question_records import AdoptedRun, AnswerOutcome, NewQuestion
from lobu_actors.store.records import (
    Accepted,
    Activation,
    Agent,
    ApiKey,
    Compacted,
    Conversation,
    Event,
    FileRecord,
    FinishRun,
    HeldElsewhere,
    Lease,
    MarkerDeadline,
    NewEvent,
    NewFile,
    NewSession,
    NewTurn,
    Owed,
    Refused,
    RequeueRun,
    StartRun,
    Totals,
    Trimmable,
    Trimmed,
    Turn,
)
from lobu_actors.store.rollout_protocol import RolloutStore
from lobu_actors.store.singleton_protocol import SingletonStore
from lobu_actors.store.standby_records import NextRun
from lobu_actors.store.ticket_protocol import TicketStore
from lobu_actors.store.timeline_protocol import TimelineStore


class TenantStore(Protocol):
    """Organizations, keys and agents."""

    async def ensure_organization(self, organization_id: str) -> None: ...

    async def put_api_key(self, key: ApiKey) -> None:
        """Insert; the same hash again changes label, role and expiry and lifts no revocation."""
        ...

    async def find_api_key(self, key_hash: str) -> ApiKey | None:
        """None when unknown, expired (database clock) or revoked."""
        ...

    async def list_api_keys(self, organization_id: str) -> list[ApiKey]: ...

    async def revoke_api_key(self, organization_id: str, key_hash_prefix: str) -> int:
        """Number of keys revoked; 0 when none matches; nothing is revoked when more than one matches (-1)."""
        ...

    async def apply_agents(self, organization_id: str, agents: Sequence[Agent]) -> None:
        """Make the organization's configured agents be exactly these: upsert, and disable the rest. Idempotent.

        At most one of them is the default; it is enabled and has no owner. Raises StoreRejected for others.
        """
        ...

    async def ensure_default_agents(self, agent: Agent) -> list[str]:
        """Give this agent as default to every organization that has none; gives their ids. Idempotent.

        An agent of that id which is there already becomes the default as it is, enabled again; but another user's own
        agent is left alone, and so is its organization.
        """
        ...

    async def find_agent(self, organization_id: str, agent_id: str | None) -> Agent | None:
        """The agent, or with None the organization's default one; disabled ones are not found."""
        ...

    async def list_agents(self, organization_id: str) -> list[Agent]: ...


class ConversationStore(Protocol):
    """What an edge needs."""

    async def open_conversation(
        self, ref: ConversationRef, user_id: str, *, model: str | None = None, provider: str | None = None
    ) -> Conversation:
        """Make it, or give the one that is there (a closed one is opened again with generation + 1)."""
        ...

    async def find_conversation(self, organization_id: str, conversation_id: str) -> Conversation | None:
        """By its key within one organization; with its counts of queued and running turns."""
        ...

    async def list_conversations(self, organization_id: str, *, limit: int) -> list[Conversation]: ...

    async def accept_turn(self, turn: NewTurn, *, max_owed: int, run: NextRun | None = None) -> Accepted | Refused:
        """Turn and marker in one statement, after a synchronous commit. A known message_id gives its turn again.

        `run`, only for a turn without a verdict, begins with it if its lease is held and nothing else is owed; else the
        turn waits as any other. Asked again, it says whether the run has begun."""
        ...

    async def find_turn(self, ref: ConversationRef, message_id: str) -> Turn | None:
        """Raises TurnUnreadable."""
        ...

    async def find_owed_turn(self, ref: ConversationRef) -> Turn | None:
        """The oldest turn that is owed; None when nothing is. Raises TurnUnreadable."""
        ...

    async def mark_closing(self, ref: ConversationRef) -> bool:
        """Refuse new messages from now on; the owner's actor does the rest. False: there is no such conversation."""
        ...

    async def read_events(self, ref: ConversationRef, from_seq: int, *, limit: int) -> list[Event]:
        """Committed events with seq >= from_seq, in order."""
        ...

    async def find_text_start(self, ref: ConversationRef, seq: int) -> int:
        """Seq of the newest event, at most `seq`, before which all text is over; 0 when the log has none."""
        ...

    async def answer_question(
        self, ref: ConversationRef, question_id: str, *, answer: str, answered_by: str, answer_id: str | None = None
    ) -> AnswerOutcome:
        """The first answer wins; the same one again, by the same user, is accepted again. The owner is told later.

        `answer_id`: what its client calls it, when it came as a message.
        """
        ...

    async def find_answered_question(self, ref: ConversationRef, answer_id: str) -> str | None:
        """The id of the question that was answered with this `answer_id`."""
        ...

    async def read_snapshot(self, ref: ConversationRef) -> bytes | None:
        """The newest snapshot of the current generation, verified against its sha256; None when there is none.

        Raises SnapshotCorrupt when the bytes do not match their hash.
        """
        ...


class ActorStore(Protocol):
    """What the owner of a conversation needs. All but `activate` are guarded by the lease."""

    async def activate(
        self, ref: ConversationRef, host_id: str, *, overdue: bool = False
    ) -> Activation | HeldElsewhere | None:
        """Take the lease (epoch + 1) unless another live host holds it. None: no such conversation.

        With `overdue` also from a live host, if a running turn's deadline has passed: its owner is stuck, and fenced.
        A host whose own row is dead or expired gets nothing and is told so by HeldElsewhere of its own id.
        """
        ...

    async def load_owed(self, lease: Lease, *, limit: int) -> list[Turn | CorruptMarker] | None:
        """What every marker owes, oldest first. Whatever the rows hold, one of them never hides the others."""
        ...

    async def mend_markers(self, lease: Lease, turn_ids: Sequence[str]) -> bool:
        """Put right what these markers contradict; ends nothing. False: lost. Nothing happens to those that are sound.

        A marker whose terminal event is in the log is deleted. One whose turn is another conversation's goes there.
        One without a turn gets it back as far as it is known: empty, with the turn's id for the message's (unless a
        message of this conversation has that). The latter two are loaded as turns with a verdict of MARKER_CORRUPT.
        """
        ...

    async def start_run(self, lease: Lease, run: StartRun) -> list[Event] | None:
        """Set queued turns running under a new run. Gives the `restart` events it wrote; None: lost, or not queued."""
        ...

    async def finish_run(self, lease: Lease, run: FinishRun) -> list[Event] | None:
        """The one terminal statement. Gives the terminal events, in order.

        Of several turns only those that are still owed are ended. Called again after an unknown outcome it gives the
        events that the first call wrote. None: the lease is lost, or every turn was ended by somebody else.
        """
        ...

    async def requeue_run(self, lease: Lease, run: RequeueRun) -> list[Turn | CorruptMarker] | None:
        """End the run as `requeued` and give its turns as they now are."""
        ...

    async def adopt_run(self, lease: Lease, run_id: str) -> AdoptedRun | None:
        """Move a live run of an earlier owner to this lease. None: the lease is lost, or the run is not live."""
        ...

    async def request_cancel(self, lease: Lease, run_id: str) -> bool:
        """Note that a live run is to end as cancelled. False: the lease is lost, or the run is not live."""
        ...

    async def join_run(self, lease: Lease, run_id: str, turn_id: str) -> bool | None:
        """Make a queued turn part of a live run. False: it is not queued or the run is not live. None: lost.

        Called again after an unknown outcome it gives the first call's answer.
        """
        ...

    async def leave_run(self, lease: Lease, run_id: str, turn_ids: tuple[str, ...]) -> bool:
        """Queue turns of a live run again, with attempt + 1: they joined it, and nobody read them. Its first one stays.

        False: lost. Called again after an unknown outcome it does nothing more.
        """
        ...

    async def ask_question(self, lease: Lease, question: NewQuestion) -> Event | None:
        """Record a question and append its event. None: lost, or the run is not live. By question_id, once."""
        ...

    async def find_answers(self, ref: ConversationRef, question_ids: Sequence[str]) -> dict[str, str]:
        """The answers that were given so far."""
        ...

    async def append_event(self, lease: Lease, event: NewEvent) -> Event | None: ...

    async def close_conversation(self, lease: Lease, reason: str) -> Event | None:
        """Once nothing is owed: purge snapshots, append `closed`, mark it closed. None: lost, or something is owed."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the lease up; its epoch stays. No error when it was lost already."""
        ...


class SessionStore(Protocol):
    """Sessions beside what `finish_run` stores: beginning a new one, and snapshots that workers post themselves."""

    async def reset_session(self, lease: Lease, session: NewSession) -> int | None:
        """Begin the next generation and delete all older snapshots.

        Gives the new generation, also when an earlier call began it. None: lost.
        """
        ...

    async def purge_snapshots(self, lease: Lease) -> int | None:
        """Delete what is stored of the conversation's sessions; the generation stays. None: lost."""
        ...

    async def is_run_live(self, ref: ConversationRef, run_id: str) -> bool: ...

    async def post_snapshot(self, ref: ConversationRef, run_id: str, data: bytes) -> bool | None:
        """Keep a worker's snapshot for the end of its live run; no reader of snapshots sees it before.

        False: the run has one already, which stays. None: this conversation has no such live run.
        """
        ...

    async def read_posted_snapshot(self, ref: ConversationRef, run_id: str) -> bytes | None: ...

    async def discard_posted_snapshots(self, ref: ConversationRef) -> None:
        """Forget what was posted for runs that are over."""
        ...

    async def read_carried_summary(self, ref: ConversationRef) -> str | None:
        """What the runs of the present generation are told of the one before it."""
        ...

    async def name_provider(self, ref: ConversationRef, provider: str) -> None:
        """Note which provider the present session is with, unless that is known."""
        ...


class RetentionStore(Protocol):
    """What a host does now and then for all conversations. Any number of hosts may do it at once."""

    async def find_trimmable(
        self, after: ConversationRef | None, *, older_than_seconds: float, max_segments: int, limit: int
    ) -> list[Trimmable]:
        """The next page of all conversations in the order of their keys; empty behind the last."""
        ...

    async def trim(self, ref: ConversationRef, *, older_than_seconds: float, limit: int) -> Trimmed:
        """Delete at most `limit` of the oldest events that are older, from the log's beginning and without a hole.

        With a terminal event goes its turn, with that its questions, and its files expire. Also runs that nothing needs
        any more, and segments that a newer whole one superseded. Never what is owed, what its readers may ask for, or
        the newest snapshot.
        """
        ...

    async def compact(self, ref: ConversationRef) -> Compacted:
        """Make the newest snapshot one whole segment with the same bytes, hash and run; delete those before it."""
        ...

    async def delete_dead_hosts(self, *, older_than_seconds: float, limit: int) -> list[str]:
        """Delete at most `limit` hosts whose time has been over for longer, dead or expired; gives their ids, sorted.

        First at most `limit` leases that such hosts left are given up, of what owes nothing. Never a host that a lease
        or a running turn still names: what is owed has to be taken over before its last holder is forgotten.
        """
        ...


class FileStore(Protocol):
    """Files: bytes first, in pieces, under no turn; bound by `accept_turn` or `finish_run`, unseen until then."""

    async def begin_file(self, file: NewFile) -> None:
        """By file_id, once."""
        ...

    async def append_chunk(self, organization_id: str, file_id: str, chunk_no: int, data: bytes) -> bool:
        """The piece of that number, from 0, once. False: there is no such file that still takes pieces."""
        ...

    async def seal_file(self, organization_id: str, file_id: str, *, size: int, sha256: str) -> bool:
        """All pieces are there: it can be bound now. False: there is no such file that is unbound."""
        ...

    async def discard_files(self, organization_id: str, file_ids: Sequence[str]) -> None:
        """Delete those that no turn has."""
        ...

    async def delete_expired_files(self, *, limit: int) -> int:
        """Delete some of what was never bound in time or was purged, of all tenants; gives how many."""
        ...

    async def list_files(self, ref: ConversationRef, *, limit: int) -> list[FileRecord]:
        """The newest first."""
        ...

    async def find_file(self, ref: ConversationRef, file_id: str) -> FileRecord | None: ...

    async def find_input_files(self, ref: ConversationRef, turn_ids: Sequence[str]) -> list[FileRecord]:
        """What came in with these turns, in the order in which it came."""
        ...

    async def read_chunk(self, organization_id: str, file_id: str, chunk_no: int) -> bytes | None:
        """None: there is no such piece."""
        ...


class HostStore(MembershipStore, RolloutStore, Protocol):
    """What a host asks about all that is owed. Only the database's clock judges an expiry."""

    async def find_owed(self, host_id: str, *, limit: int, older_than_seconds: float) -> list[Owed]:
        """Conversations that owe a turn (or a close) which no other live host is responsible for, oldest first."""
        ...

    async def extend_deadlines(self, host_id: str, deadlines: Sequence[MarkerDeadline]) -> set[str]:
        """Write the deadlines of this host's running turns; gives the turns of which it was written.

        Left out are those that are not this host's any more, as the lease has it, and those whose marker or lease
        somebody has locked right now: one that is locked must not hold up the deadlines of all others.
        """
        ...

    async def find_overdue(self, *, limit: int) -> list[ConversationRef]:
        """Conversations with a running turn whose deadline has passed, whoever holds them."""
        ...

    async def totals(self, organization_id: str | None = None) -> Totals: ...

    async def now(self) -> datetime:
        """The database's clock; also the cheapest proof that the store is usable."""
        ...


class Store(
    TenantStore,
    TicketStore,
    ConversationStore,
    ActorStore,
    SessionStore,
    RetentionStore,
    HostStore,
    FileStore,
    LinkStore,
    ListingStore,
    SingletonStore,
    TimelineStore,
    OwedStore,
    Protocol,
):
    """All of it."""
