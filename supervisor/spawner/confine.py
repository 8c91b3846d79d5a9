"""What a worker may use and whose rights it has: set in the child, between its fork and its program.

Owns the meaning of `Spawn.limits` and `Spawn.user`. `checked` is for the parent, before the fork; `apply` is all that a
child calls, whichever way it was forked, and after it nothing of the spawner's rights is left in a worker of its own
user. Limits are set first, since a user of its own has no right to raise them again.
"""

import contextlib
import ctypes
import os
import resource
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS = 38
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}.get(os.uname().machine)
_KEYCTL_JOIN_SESSION_KEYRING = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: a forked child should load nothing
_MAX_ID = 2**32 - 2
# Behind the supervisor, the spawner and a database on this host: as to CPU time, and when memory runs out.
NICENESS = 10
OOM_SCORE = 500


class ConfineError(ValueError):
    """Limits or a user that no child can be given; the text is one sentence for the operator."""


class Confinement(NamedTuple):
    """`limits`: (number of the resource, soft, hard). `user`: uid and gid; None for the spawner's own."""

    limits: tuple[tuple[int, int, int], ...]
    user: tuple[int, int] | None


def checked(limits: Mapping[str, int], user: Sequence[int] | None) -> Confinement:
    """Raises ConfineError. A limit above the spawner's own hard limit means that one."""
    found: list[tuple[int, int, int]] = []
    for name, value in limits.items():
        number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
        if number is None or not isinstance(value, int) or value < 0:
            raise ConfineError(f"{name} = {value!r} is no resource limit of this system.")
        hard = resource.getrlimit(number)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # At the hard limit of CPU time comes SIGKILL, at the soft one SIGXCPU, which says what happened.
        above = most + 1 if number == resource.RLIMIT_CPU and most != hard else most
        found.append((number, most, above))
    if user is None:
        return Confinement(tuple(found), None)
    if len(user) != 2 or not all(isinstance(part, int) and 0 < part <= _MAX_ID for part in user):
        raise ConfineError(f"{list(user)!r} is no uid and gid of a worker.")
    if os.geteuid() != 0:
        raise ConfineError("Only root can give a worker a user of its own.")
    return Confinement(tuple(found), (user[0], user[1]))


def apply(confinement: Confinement) -> None:
    """In the child. Raises OSError or ValueError, after which the child must not go on."""
    if _KEYCTL is not None:
        # The keys of who started the supervisor are inherited through everything else, a sandbox too. A kernel without
        # keys, or a container that forbids the call, says no.
        _LIBC.syscall(_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None)
    os.nice(NICENESS)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # where /proc is read-only
        file.write(str(OOM_SCORE))
    for number, soft, hard in confinement.limits:
        resource.setrlimit(number, (soft, hard))
    if confinement.user is not None:
        uid, gid = confinement.user
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        # No program with a set-uid bit gives back what was just given away.
        if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
