"""A user of its own for each living worker, when the supervisor is root: which uid, and whose workspace it opens.

Owns the numbers. A uid is one worker's at a time, and a workspace is open to no uid but that of its living worker. A
workspace keeps its uid where possible, since then its files need not be given to another. Numbers go round, so that one
is used again as late as can be.
"""

import os
import pwd
import time
from collections.abc import Callable, Collection

import msgspec

from supervisor.workspaces import ownership
from supervisor.workspaces.beneath import DIRECTORY, user_of

GIVE_SECONDS = 30.0


class NoUserLeft(OSError):
    """All uids of the range are in use."""


class UidRange(msgspec.Struct, frozen=True):
    """`count` numbers from `first` on, and the gids of the same numbers, without those of the system's accounts."""

    first: int
    count: int

    def numbers(self, accounts: Collection[int]) -> list[int]:
        return [uid for uid in range(self.first, self.first + self.count) if uid not in accounts]


def existing_accounts() -> set[int]:
    """The uids and gids that this host's accounts have."""
    return {number for account in pwd.getpwall() for number in (account.pw_uid, account.pw_gid)}


class WorkerUsers:
    """`workspaces` is the descriptor of the folder of all workspaces; a worker is named by its id."""

    def __init__(self, uids: Collection[int], workspaces: Callable[[], int]) -> None:
        self._uids = list(uids)
        self._known = frozenset(uids)
        self._workspaces = workspaces
        self._next = 0
        self._living: dict[str, tuple[int, str]] = {}  # by worker: its uid, and its workspace's name
        self._taken: dict[int, str] = {}  # by uid: the worker

    def adopt(self, worker_id: str, uid: int, workspace: str) -> None:
        """Know of a worker that another supervisor started."""
        self._living[worker_id] = (uid, workspace)
        self._taken[uid] = worker_id

    def close_unused(self) -> None:
        """Take back the workspaces that a supervisor that died left open; those of adopted workers stay."""
        used = {workspace for _, workspace in self._living.values()}
        for name in os.listdir(self._workspaces()):
            if name not in used:
                self._take_back(name)

    def take(self, worker_id: str, workspace: str) -> int:
        """A uid for a worker that is about to start; `give` comes next. Raises NoUserLeft, OSError."""
        top = os.open(workspace, DIRECTORY, dir_fd=self._workspaces())
        try:
            before = user_of(top)
        finally:
            os.close(top)
        # A former worker of this workspace may still be on its way out: the same conversation may have the same uid.
        holder = self._living.get(self._taken.get(before, ""), (0, workspace))
        uid = before if before in self._known and holder[1] == workspace else self._next_free()
        self.adopt(worker_id, uid, workspace)
        return uid

    def reserve(self, worker_id: str) -> int:
        """A uid for a worker that has no workspace yet; `assign` gives it one. Raises NoUserLeft."""
        uid = self._next_free()
        self.adopt(worker_id, uid, "")
        return uid

    def assign(self, worker_id: str, workspace: str) -> bool:
        """The workspace of a worker that was started without; `give` comes next. False: it has no user of its own."""
        if worker_id not in self._living:
            return False
        self._living[worker_id] = (self._living[worker_id][0], workspace)
        return True

    def give(self, worker_id: str) -> None:
        """Make the workspace the worker's user's. Blocking. Raises OSError, TimeoutError."""
        uid, workspace = self._living[worker_id]
        top = os.open(workspace, DIRECTORY, dir_fd=self._workspaces())
        try:
            ownership.give(top, uid, time.monotonic() + GIVE_SECONDS)
        finally:
            os.close(top)

    def release(self, worker_id: str) -> None:
        """The worker is gone: close its workspace, unless another one works there already. Nothing for others."""
        uid, workspace = self._living.pop(worker_id, (0, ""))
        if self._taken.get(uid) == worker_id:
            del self._taken[uid]
        if workspace and not any(workspace == other for _, other in self._living.values()):
            self._take_back(workspace)

    def _next_free(self) -> int:
        for step in range(len(self._uids)):
            at = (self._next + step) % len(self._uids)
            if self._uids[at] not in self._taken:
                self._next = at + 1
                return self._uids[at]
        raise NoUserLeft("all uids for workers are in use; raise [limits] worker_uid_count")

    def _take_back(self, name: str) -> None:
        try:
            top = os.open(name, DIRECTORY, dir_fd=self._workspaces())
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if ownership.is_open(top):
                ownership.take_back(top)
        finally:
            os.close(top)
