"""The files of a turn between two workspaces: the supervisor's, which is the truth, and the runner's.

The same on both sides: one sends the session file and `input/`, and takes the session file and `output/`; the other
does it the other way round. Pieces are bounded by whoever takes them, since the other side may be hostile. A session
file that the other side has already is not sent again.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Literal

import structlog

from lobu_actors.contract import worker_link as link
from lobu_actors.contract.worker_link import PIECE_BYTES, LinkError, Piece, Place, Prepare
from lobu_actors.conversation.worker_port import OutputUnreadable, SessionFileInvalid
from supervisor.workspaces.usage import Quota
from supervisor.workspaces.workspace import HostWorkspace

log = structlog.get_logger(__name__)

MAX_NAME_BYTES = 255

Put = Callable[[str], Awaitable[None]]
Folder = Literal["input", "output"]


class TooMuch(Exception):
    """What the other side sends is over a limit; the message is a sentence."""


class Files:
    """`sends` and `takes` are the folders besides the session file. All methods raise OSError."""

    def __init__(self, workspace: HostWorkspace, quota: Quota, *, sends: Folder, takes: Folder) -> None:
        self._workspace = workspace
        self._quota = quota
        self._sends = sends
        self._takes = takes
        self._session: bytearray | None = None  # on its way here
        self._same: bytes | None = None  # the hash of the session file that both sides have
        self._taken_bytes = 0
        self._taken_names: set[str] = set()

    # --- the supervisor's

    async def send_before_turn(self, put: Put) -> None:
        """Raises SessionFileInvalid, OSError."""
        self._taken_bytes, self._taken_names = 0, set()
        read = await self._workspace.read_session()
        digest = None if read is None else sha256(read[0]).digest()
        if read is None:
            await put(link.encode(Prepare("none")))
        elif digest == self._same:
            await put(link.encode(Prepare("same")))
        else:
            await put(link.encode(Prepare("follows")))
            await self._send_session(put, read[0])
        self._same = None  # until the other side has said how it left the file
        await self._send_folder(put)

    # --- the runner's

    async def prepare(self, prepare: Prepare) -> None:
        self._taken_bytes, self._taken_names = 0, set()
        self._session = None
        await self._workspace.prepare()
        if prepare.session == "none":
            await self._workspace.write_session(None)

    async def send_before_complete(self, put: Put) -> str | None:
        """The reason when the session file cannot be taken, which is then the worker's failure."""
        try:
            read = await self._workspace.read_session()
        except SessionFileInvalid as error:
            return str(error)
        if read is None:
            await put(link.encode(Piece("session", "", 0, "", last=True, absent=True)))
        else:
            await self._send_session(put, read[0])
        await self._send_folder(put)
        return None

    # --- both

    async def take(self, piece: Piece) -> None:
        """Raises LinkError, TooMuch."""
        if piece.place == "session":
            await self._take_session(piece)
        elif piece.place == self._takes:
            await self._take_file(piece)
        else:
            raise LinkError(f"a piece for {piece.place!r}, which is not taken here")

    async def _take_session(self, piece: Piece) -> None:
        if piece.absent:
            self._session, self._same = None, None
            await self._workspace.write_session(None)
            return
        if piece.offset == 0:
            self._session = bytearray()
        if self._session is None or piece.offset != len(self._session):
            raise LinkError("a piece of a session file at another place than where it was")
        self._session += piece.content
        limit = self._workspace.host.max_session_bytes
        if len(self._session) > limit:
            raise TooMuch(f"The session file has more than the limit of {limit} bytes.")
        if piece.last:
            data, self._session = bytes(self._session), None
            self._same = sha256(data).digest()
            await self._workspace.write_session(data)

    async def _take_file(self, piece: Piece) -> None:
        name, data = piece.name, piece.content
        if name in ("", ".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > MAX_NAME_BYTES:
            raise LinkError(f"a file of the name {name[:MAX_NAME_BYTES]!r}")
        self._taken_bytes += len(data)
        self._taken_names.add(name)
        if self._taken_bytes > self._quota.max_bytes or len(self._taken_names) > self._quota.max_files:
            raise TooMuch(f"Its {self._takes}/ is over the limit of a workspace.")
        await self._workspace.append(self._takes, name, data, piece.offset)

    async def _send_session(self, put: Put, data: bytes) -> None:
        for start in range(0, max(1, len(data)), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            await put(_piece("session", "", start, piece, last=start + PIECE_BYTES >= len(data)))

    async def _send_folder(self, put: Put) -> None:
        for entry in await self._workspace.listed(self._sends):
            if entry.unfit is not None:
                log.warning("file not carried", folder=self._sends, name=entry.name, reason=entry.unfit)
                continue
            try:
                for start in range(0, max(1, entry.size), PIECE_BYTES):
                    length = min(PIECE_BYTES, entry.size - start)
                    data = await self._workspace.read(self._sends, entry, start, length)
                    await put(_piece(self._sends, entry.name, start, data, last=start + length >= entry.size))
            except OutputUnreadable as error:
                log.warning("file not carried", folder=self._sends, name=entry.name, reason=str(error))


def _piece(place: Place, name: str, offset: int, data: bytes, *, last: bool) -> str:
    return link.encode(Piece.of(place, name, offset, data, last=last))
