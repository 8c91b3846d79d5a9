"""The session file of one conversation: laid out from the newest snapshot before a run, stored anew after it.

A snapshot costs what is new: when the file still begins with the previous snapshot, only the suffix is stored. Which
bytes are on disk is judged by the file's identity (inode, size, time) and, for what is stored, by sha256.

A snapshot ends with a LF. What a worker left behind the last one is a torn line: it is not stored, and it is cut from
the file before the next run, since a program that appends would glue its next entry to it. A worker that keeps a file
of its own posts a snapshot instead (`posted`); it is stored when the run left no new session file.

Session store `file`: the file stays on this host's disk and is the truth; nothing is stored, nothing laid out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, TypeVar

import structlog
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.new_session import CARRY_SUMMARY
from lobu_actors.contract.session_file import parse_session, whole_length
from lobu_actors.conversation.commit import until_known
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.resetting import summary_of
from lobu_actors.conversation.worker_port import FileMark, SessionFileInvalid, Workspace
from lobu_actors.store.errors import SnapshotCorrupt, StoreUnavailable
from lobu_actors.store.records import Lease, NewSession, Segment, SnapshotMark

log = structlog.get_logger(__name__)
T = TypeVar("T")

MAX_NAME_CHARS = 200  # of a provider or model, as the edge takes them
THREAD_BYTES = 256 * 1024  # hashing or parsing more than this would hold up everybody else


class Session:
    def __init__(
        self,
        ref: ConversationRef,
        environment: Environment,
        workspace: Workspace,
        generation: int,
        snapshot: SnapshotMark | None,
    ) -> None:
        self._ref = ref
        self._env = environment
        self._store = environment.store
        self._workspace = workspace
        self._generation = generation
        self._snapshot = snapshot
        self._patience = environment.patience
        self._stored_here = environment.session_store == "file"
        self._on_disk: FileMark | None = None  # the mark under which the disk holds exactly what the next run is to see
        self._read_back: FileMark | None = None
        self._posted = False  # the segment under way is what the worker posted
        self._purged = False  # the file on disk is of a snapshot that was deleted
        self._summary: str | None = None
        self._summary_known = generation == 1  # nothing comes before the first
        environment.live_sessions.discard(ref)

    async def lay_out(self) -> None:
        """Empty the run's folders and make the session file be the newest snapshot.

        Raises SnapshotCorrupt, SessionFileInvalid, StoreUnavailable, OSError.
        """
        found = await self._workspace.prepare()
        if self._purged or found is None or found != self._on_disk:
            await (self._cut_torn_line(found) if self._stored_here else self._hydrate(found))
        self._purged = False
        self._env.live_sessions.add(self._ref)

    def adopt(self) -> None:
        """The file was laid out by an earlier supervisor, and a worker of this conversation writes to it now."""
        self._env.live_sessions.add(self._ref)

    async def segment(self, run_id: str) -> Segment | None:
        """What the run added, to be stored with its reply; None when there is nothing new, or nothing is stored.

        Raises SessionFileInvalid, StoreUnavailable.
        """
        read = await self._workspace.read_session()
        data, self._read_back = (None, None) if read is None else read
        if self._stored_here:
            return None
        if data is None or self._read_back == self._on_disk:
            data, self._posted = await self._read_posted(run_id), True
            if data is None:
                self._posted = False
                return None
            self._read_back = None
        whole = whole_length(data)
        if whole != len(data):
            self._read_back = None
            data = data[:whole]
        if not data and self._snapshot is None:
            return None
        return await _off_loop(len(data), self._new_segment, data)

    async def stored(self, run_id: str, segment: Segment | None) -> None:
        """The terminal statement with `segment` was committed."""
        if segment is not None:
            self._snapshot = SnapshotMark(self._generation, run_id, segment.total_length, segment.sha256)
        self._on_disk = self._read_back if self._stored_here or self._snapshot is not None else None
        if self._posted:
            self._posted = False
            with suppress(StoreUnavailable):  # then the next one that is posted takes it along
                await self._store.discard_posted_snapshots(self._ref)

    async def begin_anew(self, lease: Lease, payload: Mapping[str, Any]) -> int | None:
        """Remove the file, begin the next generation as the reset's payload says. None when the lease is lost.

        Raises OSError, SessionFileInvalid (nothing was removed), StoreUnavailable.
        """
        summary = await self._summary_of_this_one() if payload.get(CARRY_SUMMARY) is True else None
        self._on_disk = None
        await self._workspace.write_session(None)
        reset = NewSession(self._generation, summary, _text(payload.get("provider")), _text(payload.get("model")))
        generation = await until_known("reset_session", lambda: self._store.reset_session(lease, reset), self._patience)
        if generation is not None:
            self._generation, self._snapshot = generation, None
            self._summary, self._summary_known = summary, True
        return generation

    def snapshots_purged(self) -> None:
        """What was stored is deleted. A file that the present run leaves as it found it is not stored again."""
        self._snapshot, self._purged = None, True

    async def summary(self) -> str | None:
        """What a run is told of the session before this one, as long as this one has nothing of its own."""
        if self._snapshot is not None or (self._stored_here and self._on_disk is not None):
            return None
        if not self._summary_known:
            self._summary = await until_known(
                "read_carried_summary", lambda: self._store.read_carried_summary(self._ref), self._patience
            )
            self._summary_known = True
        return self._summary

    async def _read_posted(self, run_id: str) -> bytes | None:
        return await until_known(
            "read_posted_snapshot",
            lambda: self._store.read_posted_snapshot(self._ref, run_id),
            self._patience,
        )

    async def _hydrate(self, found: FileMark | None) -> None:
        self._on_disk = None
        if self._snapshot is None:
            if found is not None:
                await self._workspace.write_session(None)
            return
        data = await until_known("read_snapshot", lambda: self._store.read_snapshot(self._ref), self._patience)
        self._on_disk = await self._workspace.write_session(data)

    async def _cut_torn_line(self, found: FileMark | None) -> None:
        self._on_disk = found
        read = None if found is None else await self._workspace.read_session()
        if read is not None and (whole := whole_length(read[0])) != len(read[0]):
            self._on_disk = await self._workspace.write_session(read[0][:whole])

    def _new_segment(self, data: bytes) -> Segment | None:
        base = self._snapshot
        if base is not None and len(data) >= base.length:
            digest = sha256(memoryview(data)[: base.length])
            if digest.hexdigest() == base.sha256:
                if len(data) == base.length:
                    return None
                suffix = data[base.length :]
                digest.update(suffix)
                return Segment(self._generation, base.length, len(data), digest.hexdigest(), suffix)
        return Segment(self._generation, 0, len(data), sha256(data).hexdigest(), data)

    async def _summary_of_this_one(self) -> str | None:
        """Of the snapshot, which is what was answered; of the file when nothing is stored. A damaged one has none."""
        try:
            if self._stored_here:
                read = await self._workspace.read_session()
                data = None if read is None else read[0]
            else:
                data = await until_known("read_snapshot", lambda: self._store.read_snapshot(self._ref), self._patience)
        except (SnapshotCorrupt, SessionFileInvalid) as error:
            log.warning("no summary of a session that cannot be read", error=str(error))
            return None
        return None if data is None else summary_of((await _off_loop(len(data), parse_session, data)).messages)


async def _off_loop(size: int, work: Callable[[bytes], T], data: bytes) -> T:
    """`work(data)`, in a thread when it would take long."""
    return await trio.to_thread.run_sync(work, data) if size > THREAD_BYTES else work(data)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS else None
