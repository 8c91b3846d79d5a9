"""Files in pieces, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.memory.tables import FileRow, Part, pass_checkpoint
from lobu_actors.store.records import Direction, FileRecord, NewFile


class FilePart(Part):
    """Implements `protocol.FileStore`."""

    async def begin_file(self, file: NewFile) -> None:
        await pass_checkpoint()
        row = FileRow(file, self.tables.clock() + file.lives_seconds, self.tables.next_time())
        self.tables.files.setdefault((file.ref.organization_id, file.file_id), row)

    async def append_chunk(self, organization_id: str, file_id: str, chunk_no: int, data: bytes) -> bool:
        await pass_checkpoint()
        row = self.tables.files.get((organization_id, file_id))
        if row is None or row.turn_id is not None or row.sha256:
            return False
        row.chunks.setdefault(chunk_no, bytes(data))
        return True

    async def seal_file(self, organization_id: str, file_id: str, *, size: int, sha256: str) -> bool:
        await pass_checkpoint()
        row = self.tables.files.get((organization_id, file_id))
        if row is None or row.turn_id is not None:
            return False
        row.size, row.sha256 = size, sha256
        return True

    async def discard_files(self, organization_id: str, file_ids: Sequence[str]) -> None:
        await pass_checkpoint()
        for file_id in file_ids:
            row = self.tables.files.get((organization_id, file_id))
            if row is not None and row.turn_id is None:
                del self.tables.files[organization_id, file_id]

    async def delete_expired_files(self, *, limit: int) -> int:
        await pass_checkpoint()
        now = self.tables.clock()
        found = [key for key, row in self.tables.files.items() if row.turn_id is None and row.expires_at < now]
        found.sort(key=lambda key: self.tables.files[key].expires_at)
        for key in found[:limit]:
            del self.tables.files[key]
        return len(found[:limit])

    async def list_files(self, ref: ConversationRef, *, limit: int) -> list[FileRecord]:
        await pass_checkpoint()
        found = [self._view(row, row.turn_id) for row in self._of(ref) if row.turn_id is not None]
        return sorted(found, key=lambda file: file.created_at, reverse=True)[:limit]

    async def find_file(self, ref: ConversationRef, file_id: str) -> FileRecord | None:
        await pass_checkpoint()
        row = self.tables.files.get((ref.organization_id, file_id))
        if row is None or row.turn_id is None or row.file.ref != ref:
            return None
        return self._view(row, row.turn_id)

    async def find_input_files(self, ref: ConversationRef, turn_ids: Sequence[str]) -> list[FileRecord]:
        await pass_checkpoint()
        found = [
            self._view(row, row.turn_id)
            for row in self._of(ref)
            if row.turn_id is not None and row.turn_id in turn_ids and row.file.direction is Direction.IN
        ]
        turns = self.tables.turns
        organization = ref.organization_id
        return sorted(found, key=lambda file: (turns[organization, file.turn_id].accepted_at, file.created_at))

    async def read_chunk(self, organization_id: str, file_id: str, chunk_no: int) -> bytes | None:
        await pass_checkpoint()
        row = self.tables.files.get((organization_id, file_id))
        return None if row is None else row.chunks.get(chunk_no)

    def _of(self, ref: ConversationRef) -> list[FileRow]:
        return [row for row in self.tables.files.values() if row.file.ref == ref]

    def _view(self, row: FileRow, turn_id: str) -> FileRecord:
        file = row.file
        turn = self.tables.turns.get((file.ref.organization_id, turn_id))
        return FileRecord(
            file.ref, file.file_id, turn_id, file.direction, file.name, file.media_type, row.size, row.sha256,
            row.created_at, None if turn is None else turn.message_id,
        )  # fmt: skip
