"""Whose a workspace is, when workers have users of their own: given to a worker's user, and taken back at its end.

A workspace that no worker uses belongs to the supervisor and is closed to all others. Its group then remembers whose
files lie in it, and its sticky bit says so: the next start with the same user changes one folder only. All from the
workspace's descriptor, without following links: what lies in it was made by a program that may be hostile. Blocking;
needs root.
"""

import os
import stat
import time
from collections.abc import Iterator

from supervisor.workspaces.beneath import DIRECTORY, user_of

MAX_DEPTH = 100
_FOLDER_MODE = 0o700
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class TooDeep(OSError):
    """The folders in a workspace are nested too deep to be given to another user."""


def is_open(top: int) -> bool:
    """True while the workspace belongs to a worker's user."""
    return os.fstat(top).st_uid != os.geteuid()


def give(top: int, uid: int, give_up_at: float) -> None:
    """Make all of it the user's. `give_up_at` is monotonic. Raises TooDeep, TimeoutError, OSError; then call again."""
    before = user_of(top)
    if before != uid:
        os.fchown(top, os.geteuid(), os.getegid())
        os.fchmod(top, _FOLDER_MODE)  # nobody's, until all is done
        _give_contents(top, uid, before, give_up_at)
    os.fchmod(top, _FOLDER_MODE)
    os.fchown(top, uid, uid)


def take_back(top: int) -> None:
    """Close it to the user whose it is; the files in it stay that user's."""
    uid = user_of(top)
    os.fchown(top, os.geteuid(), uid)
    os.fchmod(top, _FOLDER_MODE | stat.S_ISVTX)


def _give_contents(top: int, uid: int, before: int, give_up_at: float) -> None:
    opened: list[tuple[int, Iterator[str]]] = [(top, iter(os.listdir(top)))]
    try:
        while opened:
            parent, names = opened[-1]
            name = next(names, None)
            if name is None:
                opened.pop()
                if parent != top:
                    os.close(parent)
                continue
            if time.monotonic() > give_up_at:
                raise TimeoutError("there are too many files in it to be given to another user in time")
            folder = _give_entry(parent, name, uid, before)
            if folder is None:
                continue
            if len(opened) > MAX_DEPTH:
                os.close(folder)
                raise TooDeep(f"folders in it are nested more than {MAX_DEPTH} deep")
            opened.append((folder, iter(os.listdir(folder))))
    finally:
        for descriptor, _ in opened:
            if descriptor != top:
                os.close(descriptor)


def _give_entry(parent: int, name: str, uid: int, before: int) -> int | None:
    """Give one entry; a folder comes back open."""
    try:
        path = os.open(name, _LOOK, dir_fd=parent)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(path)
        if stat.S_ISDIR(found.st_mode):
            os.chown(f"/proc/self/fd/{path}", uid, uid)
            return os.open(".", DIRECTORY, dir_fd=path)
        # A second name of a file that is not the former worker's was linked in from elsewhere: not ours to give away.
        # Links need no owner, and devices get none.
        if (found.st_nlink == 1 or found.st_uid == before != 0) and (
            stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode)
        ):
            os.chown(f"/proc/self/fd/{path}", uid, uid)
        return None
    finally:
        os.close(path)
