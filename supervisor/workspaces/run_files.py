"""Single files in a workspace's input/ and output/: written and read piece by piece, beneath, without following links.

All blocking, all from the workspace's descriptor. A worker may change the folders at any moment: every piece opens the
file anew and checks that it still is what it was. Knows nothing of conversations.
"""

from __future__ import annotations

import os
import stat

from lobu_actors.conversation.worker_port import OutputEntry, OutputUnreadable
from supervisor.workspaces.beneath import DIRECTORY, folder, inherit

MAX_LISTED = 1000
_FILE_MODE = 0o600
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def append(top: int, part: str, name: str, data: bytes, offset: int) -> None:
    """Add a piece to a file in that folder; at offset 0 it is made. Raises OSError when it is not what it was."""
    with folder(top, part) as parent:
        descriptor = os.open(name, _APPEND if _exists(parent, name) else _CREATE, _FILE_MODE, dir_fd=parent)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size != offset:
                raise OSError(f"somebody else changed {name!r} in {part}/")
            inherit(descriptor, parent)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)


def listed(top: int, part: str) -> list[OutputEntry]:
    """What is in that folder, by name, at most MAX_LISTED entries. Raises OSError."""
    try:
        parent = os.open(part, DIRECTORY, dir_fd=top)
    except FileNotFoundError:
        return []
    try:
        entries: list[OutputEntry] = []
        with os.scandir(parent) as found:
            for entry in found:
                if len(entries) == MAX_LISTED:
                    entries.append(OutputEntry("…", 0, 0, f"more than {MAX_LISTED} entries"))
                    break
                entries.append(_entry(entry))
        return sorted(entries, key=lambda entry: (entry.name == "…", entry.name))
    finally:
        os.close(parent)


def read(top: int, part: str, entry: OutputEntry, offset: int, length: int) -> bytes:
    """Exactly `length` bytes of a listed file. Raises OutputUnreadable when it is not what it was, and OSError."""
    parent = os.open(part, DIRECTORY, dir_fd=top)
    try:
        descriptor = os.open(entry.name, _READ, dir_fd=parent)
    except FileNotFoundError as error:
        raise OutputUnreadable("it changed while it was read") from error
    finally:
        os.close(parent)
    try:
        found = os.fstat(descriptor)
        same = (found.st_ino, found.st_size, found.st_nlink) == (entry.inode, entry.size, 1)
        data = os.pread(descriptor, length, offset) if same and stat.S_ISREG(found.st_mode) else b""
        if not same or len(data) != length:
            raise OutputUnreadable("it changed while it was read")
        return data
    finally:
        os.close(descriptor)


def _exists(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _entry(entry: os.DirEntry[str]) -> OutputEntry:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return OutputEntry(entry.name, 0, 0, "it cannot be read")
    if stat.S_ISREG(found.st_mode):
        unfit = None if found.st_nlink == 1 else "it has another name elsewhere (a hard link)"
    elif stat.S_ISLNK(found.st_mode):
        unfit = "it is a link"
    elif stat.S_ISDIR(found.st_mode):
        unfit = "it is a folder"
    else:
        unfit = "it is no regular file"
    return OutputEntry(entry.name, found.st_size, found.st_ino, unfit)
