"""The workspaces of conversations on disk: `<root>/<name>/{input,output,temp,.openclaw/session.jsonl}`.

Implements the conversation's ports `Workspaces` and `Workspace`. A worker owns what is beneath its workspace and may
be hostile: everything is opened from a folder descriptor without following links. What may block for long (fsync, big
files, deep trees) runs in a thread; what takes microseconds does not, since a thread costs more.
"""

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TypeVar

import msgspec
import structlog
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import FileMark, OutputEntry, SessionFileInvalid
from supervisor.workspaces import run_files, usage
from supervisor.workspaces.beneath import DIRECTORY, empty, folder, inherit, is_empty, make_folder

T = TypeVar("T")

FOLDERS = ("input", "output", "temp")
SESSION_FOLDER = ".openclaw"
SESSION_NAME = "session.jsonl"
MAX_SESSION_BYTES = 64 * 1024 * 1024
EMPTY_SECONDS = 60.0
_INLINE_BYTES = 256 * 1024  # two hops to a thread and back cost as much as reading this
_NAME_DIGITS = 40
_LINK_PREFIX = "of-"
_FILE_MODE = 0o600

_log = structlog.get_logger()


def workspace_name(ref: ConversationRef) -> str:
    """The folder name of a conversation: the first 160 bits of the SHA-256 of its three names."""
    names = "\0".join((ref.organization_id, ref.agent_id, ref.conversation_id))
    return hashlib.sha256(names.encode()).hexdigest()[:_NAME_DIGITS]


class HostWorkspaces:
    """All workspaces beneath one folder, made if absent, which is trusted and may itself be reached through links.

    Raises OSError when the folder cannot be made. `close` gives its descriptor back.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_SESSION_BYTES,
        quota: usage.Quota | None = None,
    ) -> None:
        """`max_bytes` is for a session file, `quota` for all of one workspace."""
        self.path = os.path.abspath(root)
        self.max_session_bytes = max_bytes
        self._quota = quota or usage.Quota()
        os.makedirs(self.path, 0o700, exist_ok=True)
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def of(self, ref: ConversationRef) -> "HostWorkspace":
        return HostWorkspace(self, workspace_name(ref))

    def ensure(self, ref: ConversationRef) -> tuple[str, str]:
        """Make a workspace with its folders if absent; gives its path and its session file's. Raises OSError."""
        name = workspace_name(ref)
        with folder(self.descriptor, name) as top:
            for part in (*FOLDERS, SESSION_FOLDER):
                with folder(top, part):
                    pass
        path = os.path.join(self.path, name)
        return path, os.path.join(path, SESSION_FOLDER, SESSION_NAME)

    def link_of(self, worker_id: str) -> str:
        """What a worker that is started before it has a conversation is told as its workspace: a link, made later."""
        return os.path.join(self.path, f"{_LINK_PREFIX}{worker_id}")

    def lead(self, worker_id: str, ref: ConversationRef) -> tuple[str, str]:
        """Have that link lead to a conversation's workspace; gives it and its session file. Raises OSError."""
        link = self.link_of(worker_id)
        os.symlink(workspace_name(ref), link)
        return link, os.path.join(link, SESSION_FOLDER, SESSION_NAME)

    def keep_links(self, worker_ids: Collection[str]) -> None:
        """Remove all links but those of these workers: what a supervisor that died left."""
        kept = {os.path.basename(self.link_of(worker_id)) for worker_id in worker_ids}
        for name in os.listdir(self.descriptor):
            if name.startswith(_LINK_PREFIX) and name not in kept:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self.descriptor)

    def remove_link(self, worker_id: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.link_of(worker_id))

    async def excess(self, ref: ConversationRef) -> str | None:
        """Why a workspace is over its quota, as a sentence; None when it is not. Looks in a thread. Raises OSError."""
        return await trio.to_thread.run_sync(self._excess, workspace_name(ref))

    async def make_room(self, ref: ConversationRef) -> None:
        """Empty a workspace that is over its quota, but for a session file that can be read; no worker may be in it.

        Raises OSError, and TimeoutError after EMPTY_SECONDS.
        """
        name = workspace_name(ref)
        reason = await trio.to_thread.run_sync(self._excess, name)
        if reason is not None:
            _log.warning("workspace emptied", conversation=ref.conversation_id, reason=reason)
            await trio.to_thread.run_sync(self._make_room, name)

    def _excess(self, name: str) -> str | None:
        with self.opened(name) as top:
            return None if top is None else usage.excess(top, self._quota)

    def _make_room(self, name: str) -> None:
        give_up_at = time.monotonic() + EMPTY_SECONDS
        with folder(self.descriptor, name) as top:
            empty(top, give_up_at, SESSION_FOLDER)
            with folder(top, SESSION_FOLDER) as parent:
                found = _mark(top)
                is_fit = found is not None and found.size <= self.max_session_bytes
                empty(parent, give_up_at, SESSION_NAME if is_fit else None)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[int | None]:
        """The descriptor of a workspace, for the time of the block; None when there is none."""
        try:
            top = os.open(name, DIRECTORY, dir_fd=self.descriptor)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        try:
            yield top
        finally:
            os.close(top)

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class HostWorkspace(msgspec.Struct, frozen=True):
    """One conversation's folder. Every method raises OSError when the disk or the folder's owner is in the way."""

    host: HostWorkspaces
    name: str

    @property
    def path(self) -> str:
        return os.path.join(self.host.path, self.name)

    async def prepare(self) -> FileMark | None:
        """Make it if absent, empty input/, output/ and temp/; gives the session file's mark, None when absent.

        What is no regular file in the session file's place is removed: a run that is not told of it would end with it.
        Raises TimeoutError after EMPTY_SECONDS.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        # Every turn comes by here: a `with folder(…)` for each of the four would cost as much as all the rest.
        top = make_folder(self.host.descriptor, self.name)
        try:
            for part in FOLDERS:
                descriptor = make_folder(top, part)
                try:
                    if not is_empty(descriptor):
                        await trio.to_thread.run_sync(empty, descriptor, time.monotonic() + EMPTY_SECONDS)
                finally:
                    os.close(descriptor)
            found = _mark(top)
            if found is None and _is_in_the_way(top):
                await self.write_session(None)
            return found
        finally:
            os.close(top)

    async def write_session(self, data: bytes | None) -> FileMark | None:
        """Put the session file in place whole, fsynced with its folder; None removes it."""
        return await trio.to_thread.run_sync(self._write_session, data)

    async def read_session(self) -> tuple[bytes, FileMark] | None:
        """The session file's bytes. None when there is none. Raises SessionFileInvalid."""
        await trio.lowlevel.checkpoint_if_cancelled()
        descriptor = self._open_session()
        if descriptor is None:
            return None
        try:
            size = self._checked_size(descriptor)
            if size <= _INLINE_BYTES:
                return self._read(descriptor)
            return await trio.to_thread.run_sync(self._read, descriptor)
        finally:
            os.close(descriptor)

    async def append_input(self, name: str, data: bytes, offset: int) -> None:
        """Add a piece to a file in input/; it is made by the first, at offset 0."""
        await self.append("input", name, data, offset)

    async def list_output(self) -> list[OutputEntry]:
        """What lies in output/, by name."""
        return await self.listed("output")

    async def read_output(self, entry: OutputEntry, offset: int, length: int) -> bytes:
        """That many bytes of a listed file. Raises OutputUnreadable."""
        return await self.read("output", entry, offset, length)

    async def append(self, part: str, name: str, data: bytes, offset: int) -> None:
        """As `append_input`, to a file in one of the FOLDERS."""
        await trio.to_thread.run_sync(self._in_top, lambda top: run_files.append(top, part, name, data, offset))

    async def listed(self, part: str) -> list[OutputEntry]:
        """As `list_output`, of one of the FOLDERS."""
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._in_top(partial(run_files.listed, part=part))

    async def read(self, part: str, entry: OutputEntry, offset: int, length: int) -> bytes:
        """As `read_output`, of a file in one of the FOLDERS. Raises OutputUnreadable."""
        read = partial(run_files.read, part=part, entry=entry, offset=offset, length=length)
        return await trio.to_thread.run_sync(self._in_top, read)

    def _in_top(self, work: Callable[[int], T]) -> T:
        top = make_folder(self.host.descriptor, self.name)
        try:
            return work(top)
        finally:
            os.close(top)

    async def remove(self) -> None:
        """Delete the whole folder; nothing when there is none. Raises TimeoutError after EMPTY_SECONDS."""
        await trio.to_thread.run_sync(self._remove)

    def _write_session(self, data: bytes | None) -> FileMark | None:
        with folder(self.host.descriptor, self.name) as top, folder(top, SESSION_FOLDER) as parent:
            if data is None:
                if _is_folder(parent, SESSION_NAME):
                    _remove_folder(parent, SESSION_NAME)
                else:
                    _discard(parent, SESSION_NAME)
                os.fsync(parent)
                return None
            temporary = f".{SESSION_NAME}.{os.urandom(8).hex()}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, _FILE_MODE, dir_fd=parent)
            try:
                inherit(descriptor, parent)
                _write_all(descriptor, data)
                os.fsync(descriptor)
                if _is_folder(parent, SESSION_NAME):
                    _remove_folder(parent, SESSION_NAME)
                os.rename(temporary, SESSION_NAME, src_dir_fd=parent, dst_dir_fd=parent)
                found = os.fstat(descriptor)
            except BaseException:
                _discard(parent, temporary)
                raise
            finally:
                os.close(descriptor)
            os.fsync(parent)
            return FileMark(found.st_ino, found.st_size, found.st_mtime_ns)

    def _open_session(self) -> int | None:
        opened: list[int] = []
        try:
            parent = self.host.descriptor
            for part in (self.name, SESSION_FOLDER):
                parent = os.open(part, DIRECTORY, dir_fd=parent)
                opened.append(parent)
            # Non-blocking, so that a pipe in its place cannot hold us up.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(SESSION_NAME, flags, dir_fd=parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SessionFileInvalid(f"The session file or its folder is not what it should be: {error}.") from error
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _checked_size(self, descriptor: int) -> int:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SessionFileInvalid("The session file is no regular file.")
        if found.st_size > self.host.max_session_bytes:
            raise SessionFileInvalid(
                f"The session file has {found.st_size} bytes, more than the limit of {self.host.max_session_bytes}."
            )
        return found.st_size

    def _read(self, descriptor: int) -> tuple[bytes, FileMark]:
        limit = self.host.max_session_bytes
        parts: list[bytes] = []
        size = 0
        while data := os.read(descriptor, min(1024 * 1024, limit + 1 - size)):
            parts.append(data)
            size += len(data)
            if size > limit:
                raise SessionFileInvalid(f"The session file grew over the limit of {limit} bytes while it was read.")
        found = os.fstat(descriptor)
        return b"".join(parts), FileMark(found.st_ino, found.st_size, found.st_mtime_ns)

    def _remove(self) -> None:
        if _is_folder(self.host.descriptor, self.name):
            _remove_folder(self.host.descriptor, self.name)
        else:
            _discard(self.host.descriptor, self.name)


def _mark(top: int) -> FileMark | None:
    try:
        parent = os.open(SESSION_FOLDER, DIRECTORY, dir_fd=top)
    except OSError:
        return None
    try:
        found = os.stat(SESSION_NAME, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return None
    finally:
        os.close(parent)
    return FileMark(found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _is_in_the_way(top: int) -> bool:
    """Where there is no session file, something else is in its place, or in that of its folder."""
    try:
        parent = os.open(SESSION_FOLDER, DIRECTORY, dir_fd=top)
    except NotADirectoryError:
        return True
    except OSError:
        return False  # nothing is there, or it is closed to us
    try:
        os.stat(SESSION_NAME, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    finally:
        os.close(parent)
    return True


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _discard(parent: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)


def _is_folder(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove_folder(parent: int, name: str) -> None:
    with folder(parent, name) as descriptor:
        empty(descriptor, time.monotonic() + EMPTY_SECONDS)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=parent)
