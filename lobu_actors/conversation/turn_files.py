"""Files of one conversation's runs: what came with messages, laid out before a run; what a worker left, taken after it.

Output is stored piece by piece under no turn, which nobody sees, and becomes the turn's in the terminal statement: a
reply and its files are there together or not at all. What cannot be taken never keeps a turn from its end; it is named
in the reply's event. One piece is in memory at a time.
"""

from __future__ import annotations

from hashlib import sha256
from mimetypes import MimeTypes

import msgspec
import structlog
import trio
from msgspec.structs import replace

from lobu_actors.contract.events import Data
from lobu_actors.contract.file_names import DEFAULT_TYPE, safe_name, unique_name
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.text import storable
from lobu_actors.conversation.commit import until_known
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.worker_port import OutputEntry, OutputUnreadable, Workspace
from lobu_actors.store.errors import StoreError, StoreRejected
from lobu_actors.store.records import (
    FILE_CHUNK_BYTES,
    FILES_KEY,
    UNBOUND_FILE_SECONDS,
    Direction,
    FileRecord,
    NewFile,
    Turn,
)

MAX_REFUSED = 100  # that are named
DISCARD_SECONDS = 2.0

_log = structlog.get_logger(__name__)
_types = MimeTypes()


class Taken(msgspec.Struct, frozen=True):
    """What a run left: the stored files, still unbound, and the refused ones as (name, reason)."""

    files: tuple[Data, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def file_ids(self) -> tuple[str, ...]:
        return tuple(file["fileId"] for file in self.files)

    def event_fields(self) -> Data:
        """Their part of the `complete` event: nothing when there is nothing to say."""
        fields: Data = {"files": list(self.files)} if self.files else {}
        if self.refused:
            fields["filesRefused"] = [{"name": name, "reason": reason} for name, reason in self.refused]
        return fields


class TurnFiles:
    def __init__(self, ref: ConversationRef, environment: Environment, workspace: Workspace) -> None:
        self._ref = ref
        self._store = environment.store
        self._workspace = workspace
        self._limits = environment.file_limits
        self._patience = environment.patience
        self._promises, self._running = environment.promises, environment.running
        self._laid: dict[str, list[Data]] = {}  # by turn

    async def lay_in(self, turns: tuple[Turn, ...]) -> None:
        """Put what came with these messages into input/, which is empty. Raises OSError, StoreUnavailable."""
        self._laid = {}
        turn_ids = [turn.turn_id for turn in turns if FILES_KEY in turn.payload]
        if not turn_ids:
            return
        files = await until_known(
            "find_input_files", lambda: self._store.find_input_files(self._ref, turn_ids), self._patience
        )
        names: set[str] = set()
        for file in files:
            name = unique_name(file.name, names)  # two messages of one run may have brought the same
            names.add(name.casefold())
            await self._lay(file, name)
            told = {"fileId": file.file_id, "name": name, "mediaType": file.media_type, "size": file.size}
            self._laid.setdefault(file.turn_id, []).append(told)

    def told(self, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """The turns as the worker is to see them: with the names under which their files lie in input/."""
        return tuple(
            replace(turn, payload={**turn.payload, FILES_KEY: self._laid[turn.turn_id]})
            if turn.turn_id in self._laid
            else turn
            for turn in turns
        )

    async def take_out(self) -> Taken:
        """Store what regular files are in output/. Raises StoreUnavailable."""
        try:
            entries = await self._workspace.list_output()
        except OSError as error:
            _log.warning("output folder cannot be read", error=str(error))
            return Taken(refused=(("output", "the folder cannot be read"),))
        taken: list[Data] = []
        refused: list[tuple[str, str]] = []
        names: set[str] = set()
        total = 0
        for entry in entries:
            reason = entry.unfit or self._over_limit(entry, len(taken), total)
            if reason is None:
                name = unique_name(safe_name(storable(entry.name)), names)
                try:
                    taken.append(await self._take(entry, name))
                    names.add(name.casefold())
                    total += entry.size
                    continue
                except (OutputUnreadable, StoreRejected, OSError) as error:
                    _log.warning("output file refused", error=str(error))
                    reason = str(error) if isinstance(error, OutputUnreadable) else "it cannot be read"
            refused.append((safe_name(storable(entry.name)), reason))
        if len(refused) > MAX_REFUSED:
            rest = len(refused) - MAX_REFUSED
            refused = [*refused[:MAX_REFUSED], ("…", f"and {rest} more")]
        return Taken(tuple(taken), tuple(refused))

    async def discard(self, taken: Taken) -> None:
        """Delete what no turn has; bounded, and what cannot be deleted now expires."""
        if not taken.files:
            return
        with trio.move_on_after(DISCARD_SECONDS):
            try:
                await self._store.discard_files(self._ref.organization_id, taken.file_ids)
            except StoreError as error:
                _log.warning("unbound files stay until they expire", files=len(taken.files), error=str(error))

    async def _lay(self, file: FileRecord, name: str) -> None:
        await self._workspace.append_input(name, b"", 0)
        digest = sha256()
        for number in range(file.chunks):
            data = await until_known(
                "read_chunk",
                lambda number=number: self._store.read_chunk(self._ref.organization_id, file.file_id, number),  # type: ignore[misc]
                self._patience,
            )
            if data is None:
                raise OSError(f"piece {number} of {file.name!r} is not there any more")
            digest.update(data)
            await self._workspace.append_input(name, data, number * FILE_CHUNK_BYTES)
            self._goes_on()
        if digest.hexdigest() != file.sha256:
            raise OSError(f"the stored bytes of {file.name!r} do not match their hash")

    def _goes_on(self) -> None:
        self._promises.goes_on(self._ref, self._running.now())

    def _over_limit(self, entry: OutputEntry, count: int, total: int) -> str | None:
        limits = self._limits
        if count >= limits.max_files:
            return f"more than {limits.max_files} files"
        if entry.size > limits.file_bytes:
            return f"more than {limits.file_bytes} bytes"
        return f"more than {limits.total_bytes} bytes together" if total + entry.size > limits.total_bytes else None

    async def _take(self, entry: OutputEntry, name: str) -> Data:
        media_type = _types.guess_type(name)[0] or DEFAULT_TYPE
        file = NewFile(self._ref, new_id(), Direction.OUT, name, media_type, UNBOUND_FILE_SECONDS)
        organization, patience, store = self._ref.organization_id, self._patience, self._store
        await until_known("begin_file", lambda: store.begin_file(file), patience)
        digest = sha256()
        try:
            for number, offset in enumerate(range(0, entry.size, FILE_CHUNK_BYTES)):
                data = await self._workspace.read_output(entry, offset, min(FILE_CHUNK_BYTES, entry.size - offset))
                digest.update(data)
                await until_known(
                    "append_chunk",
                    lambda number=number, data=data: store.append_chunk(organization, file.file_id, number, data),  # type: ignore[misc]
                    patience,
                )
                self._goes_on()
        except (OutputUnreadable, OSError):
            told: Data = {"fileId": file.file_id}
            await self.discard(Taken((told,)))
            raise
        await until_known(
            "seal_file",
            lambda: store.seal_file(organization, file.file_id, size=entry.size, sha256=digest.hexdigest()),
            patience,
        )
        return {"fileId": file.file_id, "name": name, "mediaType": media_type, "size": entry.size}
