"""How much a workspace holds, against its quota. Blocking; no link is followed; stops as soon as it is too much.

Bytes are what is allocated on the disk, so that a sparse file costs what it takes and no more; a file of several names
counts once. What a worker deleted and still has open is not seen.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from supervisor.workspaces.beneath import open_own
from supervisor.workspaces.ownership import MAX_DEPTH

if TYPE_CHECKING:
    _Level = tuple[int, os._ScandirIterator[str]]  # an open folder, and what of it is still to be looked at

_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own are


class Quota(msgspec.Struct, frozen=True):
    """What one workspace may hold in all: `max_files` counts folders and links, too."""

    max_bytes: int = 2 * 1024**3
    max_files: int = 100_000


def excess(top: int, quota: Quota) -> str | None:
    """Why the workspace is over its quota, as a sentence; None when it is not. Raises OSError.

    Beyond MAX_DEPTH it could not be given to another user, so that is too much as well.
    """
    size = files = 0
    counted: set[int] = set()  # inodes that have several names
    opened: list[_Level] = [(top, os.scandir(top))]
    try:
        while opened:
            parent, entries = opened[-1]
            entry = next(entries, None)
            if entry is None:
                _close(opened.pop(), top)
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            files += 1
            is_folder = stat.S_ISDIR(found.st_mode)
            if is_folder or found.st_nlink == 1 or found.st_ino not in counted:
                size += found.st_blocks * _BLOCK_BYTES
            if not is_folder and found.st_nlink > 1:
                counted.add(found.st_ino)
            if files > quota.max_files:
                return f"The workspace holds more than {quota.max_files} files."
            if size > quota.max_bytes:
                return f"The workspace holds more than {quota.max_bytes} bytes."
            if is_folder:
                if len(opened) > MAX_DEPTH:
                    return f"Folders in the workspace are nested more than {MAX_DEPTH} deep."
                folder = open_own(parent, entry.name)
                if folder is not None:
                    opened.append((folder, _listed(folder)))
        return None
    finally:
        for level in opened:
            _close(level, top)


def _listed(folder: int) -> os._ScandirIterator[str]:
    try:
        return os.scandir(folder)
    except BaseException:
        os.close(folder)
        raise


def _close(level: _Level, top: int) -> None:
    descriptor, entries = level
    entries.close()
    if descriptor != top:
        os.close(descriptor)
