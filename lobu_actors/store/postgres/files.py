"""Files in pieces, on Postgres. Statements in files.sql; what binds a file to a turn is where turns are written."""

from __future__ import annotations

from collections.abc import Sequence

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.driver import Row
from lobu_actors.store.postgres.rows import Part, ref_params
from lobu_actors.store.records import Direction, FileRecord, NewFile


class FilePart(Part):
    """Implements `protocol.FileStore`."""

    async def begin_file(self, file: NewFile) -> None:
        params = ref_params(file.ref) | {
            "file_id": file.file_id,
            "direction": file.direction.value,
            "name": file.name,
            "media_type": file.media_type,
            "lives_seconds": float(file.lives_seconds),
        }
        await self.write("insert_unbound_file", params)

    async def append_chunk(self, organization_id: str, file_id: str, chunk_no: int, data: bytes) -> bool:
        params = {"organization_id": organization_id, "file_id": file_id, "chunk_no": chunk_no, "data": data}
        return bool(await self.write("append_file_chunk_if_unbound", params))

    async def seal_file(self, organization_id: str, file_id: str, *, size: int, sha256: str) -> bool:
        params = {"organization_id": organization_id, "file_id": file_id, "size": size, "sha256": sha256}
        return bool(await self.write("seal_file_if_unbound", params))

    async def discard_files(self, organization_id: str, file_ids: Sequence[str]) -> None:
        params = {"organization_id": organization_id, "file_ids": list(file_ids)}
        await self.write("delete_files_if_unbound", params)

    async def delete_expired_files(self, *, limit: int) -> int:
        [(deleted,)] = await self.write("delete_expired_files", {"limit": limit})
        return int(deleted)

    async def list_files(self, ref: ConversationRef, *, limit: int) -> list[FileRecord]:
        return [_to_file(ref, row) for row in await self.read("list_files", ref_params(ref) | {"limit": limit})]

    async def find_file(self, ref: ConversationRef, file_id: str) -> FileRecord | None:
        rows = await self.read("find_file", ref_params(ref) | {"file_id": file_id})
        return _to_file(ref, rows[0]) if rows else None

    async def find_input_files(self, ref: ConversationRef, turn_ids: Sequence[str]) -> list[FileRecord]:
        rows = await self.read("find_input_files", ref_params(ref) | {"turn_ids": list(turn_ids)})
        return [_to_file(ref, row) for row in rows]

    async def read_chunk(self, organization_id: str, file_id: str, chunk_no: int) -> bytes | None:
        params = {"organization_id": organization_id, "file_id": file_id, "chunk_no": chunk_no}
        rows = await self.read("read_file_chunk", params, binary=True)
        return bytes(rows[0][0]) if rows else None


def _to_file(ref: ConversationRef, row: Row) -> FileRecord:
    file_id, turn_id, direction, *rest = row
    return FileRecord(ref, file_id, turn_id, Direction(direction), *rest)
