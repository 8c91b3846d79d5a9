"""The embedded server's place on disk: folders, owners, modes, lock, socket path. Starts nothing.

PostgreSQL refuses to run as root. When we are root, the server runs as a system user: whoever owns the data already,
else `postgres`, else one that is made, else `nobody`. That user gets the data and socket folders, and leave to pass
through (not to list) the folders above them.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from lobu_actors.store.errors import EmbeddedServerError

# A socket's path has at most 107 bytes; the server appends "/.s.PGSQL.5432".
MAX_SOCKET_DIR_BYTES = 107 - len("/.s.PGSQL.5432")
MAX_LOG_BYTES = 10 * 1024 * 1024
SERVER_USER = "lobu"
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PREFIX = "lobu-pg-"
NEW_PREFIX = "pgdata.new"
USERADD_SECONDS = 30


class ServerUser(msgspec.Struct, frozen=True):
    uid: int
    gid: int

    @property
    def spawn_options(self) -> dict[str, Any]:
        """For subprocess: become that user; nothing when we are it."""
        if os.geteuid() != 0:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


class ServerFiles(msgspec.Struct, frozen=True):
    """`<path>/.lobu` and what lies in it."""

    home: Path

    @property
    def pgdata(self) -> Path:
        return self.home / "pgdata"

    @property
    def log(self) -> Path:
        return self.home / "postgres.log"

    def lock(self) -> int:
        """Take the folder for this process. Raises EmbeddedServerError when another one has it.

        The kernel gives it back when this process ends, however it ends.
        """
        self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(self.home / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise EmbeddedServerError(
                f"another process (pid {holder or 'unknown'}) runs the database in {self.home}; "
                "stop it or use another folder"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor

    def choose_user(self) -> ServerUser:
        if os.geteuid() != 0:
            return ServerUser(os.geteuid(), os.getegid())
        if self.pgdata.exists():
            owner = self.pgdata.stat()
            if owner.st_uid != 0:
                return ServerUser(owner.st_uid, owner.st_gid)
        for name in ("postgres", SERVER_USER):
            if (entry := _find_user(name)) is not None:
                return entry
        return _make_user(SERVER_USER) or _find_user("nobody") or _no_user()

    def open_ways(self, user: ServerUser, programs: Path) -> list[Path]:
        """Let the server's user pass through the folders above its data and its programs. Gives those changed."""
        if os.geteuid() != 0:
            return []
        changed = []
        for folder in {*self.pgdata.parents, *self.pgdata.resolve().parents, *programs.parents, programs}:
            if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH and folder.stat().st_uid != user.uid:
                folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
                changed.append(folder)
        return sorted(changed)

    def make_new_pgdata(self, user: ServerUser) -> Path:
        """Where a cluster is made; renamed when it is whole, so that an interrupted start leaves no half one.

        Each has a name of its own: who was killed while he made one may have left a program that is still at it.
        """
        self.drop_new_pgdata()
        made = Path(tempfile.mkdtemp(prefix=f"{NEW_PREFIX}-", dir=self.home))
        self.make_private(made, user)
        return made

    def drop_new_pgdata(self) -> None:
        for folder in self.home.glob(f"{NEW_PREFIX}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def make_private(self, folder: Path, user: ServerUser) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(folder, user.uid, user.gid)

    def make_socket_dir(self, user: ServerUser) -> Path:
        """A private folder whose path is short enough; outside the data folder when that one is too deep."""
        inside = self.home / "run"
        if len(os.fsencode(inside)) <= MAX_SOCKET_DIR_BYTES:
            self.make_private(inside, user)
            return inside
        for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
            if parent and os.path.isdir(parent) and len(os.fsencode(parent)) + 20 <= MAX_SOCKET_DIR_BYTES:
                made = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=parent))
                self.make_private(made, user)
                return made
        raise EmbeddedServerError("no folder has a path short enough for the database's socket; set TMPDIR to one")

    def clear_socket_dir(self, folder: Path) -> None:
        """Remove what a dead server left in a socket folder. Its lock may name a process that lives and is not it.

        Sound under the state folder's lock only, when no server of this folder runs.
        """
        for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
            (folder / name).unlink(missing_ok=True)

    def drop_socket_dir(self, folder: Path | None) -> None:
        """Remove a socket folder that lies outside the data folder, ours or an earlier life's; no other."""
        if folder is not None and folder.name.startswith(SOCKET_PREFIX) and folder.parent != self.home:
            shutil.rmtree(folder, ignore_errors=True)

    def open_log(self) -> int:
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def log_tail(self, start: int, lines: int = 5) -> str:
        """The last lines of what was written from that place on."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(start, self.log.stat().st_size - 4096))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def _find_user(name: str) -> ServerUser | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return ServerUser(entry.pw_uid, entry.pw_gid)


def _make_user(name: str) -> ServerUser | None:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=USERADD_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return _find_user(name)


def _no_user() -> ServerUser:
    raise EmbeddedServerError("PostgreSQL refuses to run as root and there is no other user; run as a normal user")
