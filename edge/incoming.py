"""Files on their way in: stored piece by piece under no turn, and gone again unless a turn has them in the end.

Every write has a key and is asked again while the store is away, within a bound. Holds one piece in memory. Knows
nothing of HTTP; a process that dies leaves rows that expire.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256

import structlog
import trio

from lobu_actors.contract.events import Data
from lobu_actors.contract.file_names import safe_media_type, safe_name, unique_name
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.store.errors import StoreError, StoreOutcomeUnknown, StoreUnavailable
from lobu_actors.store.protocol import FileStore
from lobu_actors.store.records import FILE_CHUNK_BYTES, UNBOUND_FILE_SECONDS, Direction, NewFile

_AGAIN_SECONDS = 0.2

_log = structlog.get_logger(__name__)


class Incoming:
    """The files of one message. Call `begin`, `write` and `end` for each, and `discard` whatever happened."""

    def __init__(self, store: FileStore, ref: ConversationRef, patience_seconds: float) -> None:
        self._store = store
        self._ref = ref
        self._patience_seconds = patience_seconds
        self._begun: list[str] = []
        self._names: set[str] = set()
        self._pending = bytearray()
        self._chunk_no = 0
        self._size = 0
        self._digest = sha256()
        self._file: NewFile | None = None
        self.files: list[Data] = []  # whole ones, as workers are told of them

    @property
    def file_ids(self) -> tuple[str, ...]:
        return tuple(file["fileId"] for file in self.files)

    async def begin(self, name: str, media_type: str | None) -> None:
        name = unique_name(safe_name(name), self._names)
        self._names.add(name.casefold())
        file = NewFile(self._ref, new_id(), Direction.IN, name, safe_media_type(media_type), UNBOUND_FILE_SECONDS)
        self._begun.append(file.file_id)
        self._file, self._chunk_no, self._size, self._digest = file, 0, 0, sha256()
        await self._until_stored(lambda: self._store.begin_file(file))

    async def write(self, data: bytes) -> int:
        """Gives the file's size so far."""
        self._digest.update(data)
        self._size += len(data)
        self._pending += data
        while len(self._pending) >= FILE_CHUNK_BYTES:
            await self._flush(FILE_CHUNK_BYTES)
        return self._size

    async def end(self) -> None:
        file, size, digest = self._file, self._size, self._digest.hexdigest()
        assert file is not None
        if self._pending:
            await self._flush(len(self._pending))
        self._file = None
        organization = self._ref.organization_id
        await self._until_stored(lambda: self._store.seal_file(organization, file.file_id, size=size, sha256=digest))
        self.files.append({"fileId": file.file_id, "name": file.name, "mediaType": file.media_type, "size": size})

    async def discard(self) -> None:
        """Delete what no turn has, also when the caller is cancelled. Bounded; what cannot be deleted now expires."""
        if not self._begun:
            return
        with trio.move_on_after(self._patience_seconds, shield=True):
            try:
                await self._store.discard_files(self._ref.organization_id, self._begun)
            except StoreError as error:
                _log.warning("unbound files stay until they expire", files=len(self._begun), error=str(error))

    async def _flush(self, length: int) -> None:
        assert self._file is not None
        file_id, number, data = self._file.file_id, self._chunk_no, bytes(self._pending[:length])
        del self._pending[:length]
        self._chunk_no += 1
        append = self._store.append_chunk
        await self._until_stored(lambda: append(self._ref.organization_id, file_id, number, data))

    async def _until_stored(self, write: Callable[[], Awaitable[bool | None]]) -> None:
        with trio.move_on_after(self._patience_seconds):
            while True:
                try:
                    if await write() is False:
                        raise StoreUnavailable("the file took too long to arrive and was deleted")
                    return
                except StoreOutcomeUnknown:
                    await trio.sleep(_AGAIN_SECONDS)
        raise StoreUnavailable("a piece of a file could not be stored in time")
