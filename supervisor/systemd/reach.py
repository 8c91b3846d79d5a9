"""Whether the user that the units run as can get at the program: as the kernel would judge, without being that user."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path


def out_of_reach(paths: Iterable[Path], user: str) -> Path | None:
    """The outermost place on the way to one of the paths that the user may not enter or read; None: there is none.

    Links are followed. A user that is still to be made is one who owns nothing and is in no group.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        uid, groups = -1, set[int]()
    else:
        uid, groups = entry.pw_uid, set(os.getgrouplist(user, entry.pw_gid))
    for path in paths:
        real = path.resolve()
        # Of a link, both ways count: the one that is written down, and the one that it leads to.
        for place in (*reversed(path.absolute().parents), *reversed(real.parents)):
            if not _may(place, stat.S_IXOTH, uid, groups):
                return place
        if not _may(real, stat.S_IROTH | stat.S_IXOTH if real.is_dir() else stat.S_IROTH, uid, groups):
            return real
    return None


def _may(place: Path, wanted: int, uid: int, groups: set[int]) -> bool:
    found = place.stat()
    if uid == 0:
        return True
    shift = 6 if found.st_uid == uid else 3 if found.st_gid in groups else 0
    return stat.S_IMODE(found.st_mode) >> shift & wanted == wanted
