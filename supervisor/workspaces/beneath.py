"""File work beneath a folder whose contents a hostile program can change at any time: no link is ever followed.

Owns the primitives, all on folder descriptors with O_NOFOLLOW, all blocking. Knows nothing of conversations.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODE = 0o700


def make_folder(parent: int, name: str) -> int:
    """Open a folder, making it if absent; what else is in its place (a link, a file) is removed. Raises OSError."""
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        pass
    except NotADirectoryError:  # O_NOFOLLOW with O_DIRECTORY says this of a link too
        os.unlink(name, dir_fd=parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, _FOLDER_MODE, dir_fd=parent)
    made = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        inherit(made, parent)
    except BaseException:
        os.close(made)
        raise
    return made


def user_of(descriptor: int) -> int:
    """Whose files lie in a folder: its owner's, or while it is closed to them, the group's (see `ownership`)."""
    found = os.fstat(descriptor)
    is_closed = found.st_uid == os.geteuid() and found.st_mode & stat.S_ISVTX
    return found.st_gid if is_closed else found.st_uid


def inherit(made: int, parent: int) -> None:
    """What root made belongs to whom the rest of the folder belongs: the worker's user, if it has one of its own."""
    user = user_of(parent)
    if user != 0 and os.geteuid() == 0:
        os.fchown(made, user, user)


@contextlib.contextmanager
def folder(parent: int, name: str) -> Iterator[int]:
    """`make_folder`, closed at the end of the block."""
    descriptor = make_folder(parent, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_empty(descriptor: int) -> bool:
    with os.scandir(descriptor) as entries:
        return next(entries, None) is None


def empty(descriptor: int, give_up_at: float, keep: str | None = None) -> None:
    """Remove all that is in a folder, but for what is called `keep`.

    `give_up_at` is monotonic; raises TimeoutError then, and OSError. A folder within is not descended into: its own
    folders are moved up here first, so that neither depth nor open descriptors grow with what a worker made.
    """
    moved = 0
    while names := [name for name in os.listdir(descriptor) if name != keep]:
        for name in names:
            if time.monotonic() > give_up_at:
                raise TimeoutError("a folder could not be emptied in time")
            moved = _remove(descriptor, name, moved)


def _remove(top: int, name: str, moved: int) -> int:
    try:
        os.unlink(name, dir_fd=top)
        return moved
    except FileNotFoundError:
        return moved
    except (IsADirectoryError, PermissionError):  # Linux says the first of a folder, POSIX allows the second
        pass
    inner = open_own(top, name)
    if inner is None:
        return moved
    try:
        for entry in os.listdir(inner):
            try:
                os.unlink(entry, dir_fd=inner)
            except FileNotFoundError:
                continue
            except (IsADirectoryError, PermissionError):
                moved += 1
                _move_up(inner, entry, top, f".emptied-{moved}-{os.urandom(6).hex()}")
    finally:
        os.close(inner)
    try:
        os.rmdir(name, dir_fd=top)
    except OSError as error:
        # Not empty: somebody put something in meanwhile, and the next round takes it.
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise
    return moved


def _move_up(inner: int, entry: str, top: int, name: str) -> None:
    try:
        os.rename(entry, name, src_dir_fd=inner, dst_dir_fd=top)
    except PermissionError:
        # Moving a folder rewrites its `..`, which needs the right to write it.
        own = open_own(inner, entry)
        if own is not None:
            os.close(own)
        os.rename(entry, name, src_dir_fd=inner, dst_dir_fd=top)


def open_own(parent: int, name: str) -> int | None:
    """Open a folder that its maker may have closed to us, giving us all rights to it. None when it went away."""
    try:
        path = os.open(name, os.O_PATH | DIRECTORY, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if stat.S_IMODE(os.fstat(path).st_mode) & _FOLDER_MODE != _FOLDER_MODE:
            os.chmod(f"/proc/self/fd/{path}", _FOLDER_MODE)
        return os.open(".", DIRECTORY, dir_fd=path)
    finally:
        os.close(path)
