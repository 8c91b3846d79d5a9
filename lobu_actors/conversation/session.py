"""The session file of one conversation: laid out from the newest snapshot before a run, stored anew after it.

A snapshot costs what is new: when the file still begins with the previous snapshot, only the suffix is stored. Which
bytes are on disk is judged by the file's identity (inode, size, time) and, for what is stored, by sha256.
"""

from __future__ import annotations

from hashlib import sha256

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.commit import until_known
from lobu_actors.conversation.worker_port import FileMark, Workspace
from lobu_actors.store.protocol import Store
from lobu_actors.store.records import Segment, SnapshotMark


class Session:
    def __init__(
        self,
        ref: ConversationRef,
        store: Store,
        workspace: Workspace,
        generation: int,
        snapshot: SnapshotMark | None,
        patience_seconds: float,
    ) -> None:
        self._ref = ref
        self._store = store
        self._workspace = workspace
        self._generation = generation
        self._snapshot = snapshot
        self._patience_seconds = patience_seconds
        self._on_disk: FileMark | None = None  # the mark under which the disk holds exactly the newest snapshot
        self._read_back: FileMark | None = None

    async def lay_out(self) -> None:
        """Empty the run's folders and make the session file be the newest snapshot.

        Raises SnapshotCorrupt, SessionFileInvalid, StoreUnavailable.
        """
        found = await self._workspace.prepare()
        if found is not None and found == self._on_disk:
            return
        if self._snapshot is None:
            if found is not None:
                await self._workspace.write_session(None)
            self._on_disk = None
            return
        data = await until_known("read_snapshot", lambda: self._store.read_snapshot(self._ref), self._patience_seconds)
        self._on_disk = await self._workspace.write_session(data)

    async def segment(self) -> Segment | None:
        """What the run added, to be stored with its reply; None when the file is absent or unchanged.

        Raises SessionFileInvalid.
        """
        read = await self._workspace.read_session()
        if read is None:
            self._read_back = None
            return None
        data, self._read_back = read
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

    def stored(self, run_id: str, segment: Segment | None) -> None:
        """The terminal statement with `segment` was committed."""
        if segment is not None:
            self._snapshot = SnapshotMark(self._generation, run_id, segment.total_length, segment.sha256)
        self._on_disk = self._read_back if self._snapshot is not None else None
