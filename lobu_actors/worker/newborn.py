"""Makes a freshly forked process look as if it had been executed: session, descriptors, environment, limits, user.

Owns the order of these steps: what reads /proc comes before the change of user, after which /proc/self is not ours.
Loaded by zygotes only.
"""

import ctypes
import fcntl
import os
import resource
import sys
from typing import Any, NamedTuple

from lobu_actors.worker import environ_block

WORKER_FD = 3
NONE = -1  # for no descriptor
NICENESS, OOM_SCORE = 10, 500  # as of a worker that is executed
_FREE_FD = 10  # what is put in its place first goes out of the way, to a number from here on
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}.get(os.uname().machine)
_KEYCTL_JOIN_SESSION_KEYRING = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class Order(NamedTuple):
    """What a spawner wants of a new worker. `limits`: number of the resource, soft, hard. `user`: uid and gid."""

    worker_id: str
    env: dict[str, str]
    cwd: str
    limits: list[tuple[int, int, int]]
    user: list[int] | None


def become_worker(order: Order, worker_socket: int, log: int, kept: int, block: environ_block.Block) -> None:
    """Take everything of a worker's own, the two descriptors among it, and close all others but `kept`.

    Raises OSError and ValueError when the folder, a limit or the user is not to be had.
    """
    # Its environment first: who looks at processes would take a leader of a session with a zygote's for a zygote.
    environ_block.replace(block, order.env)
    os.setsid()
    _take_descriptors(worker_socket, log, kept)
    os.chdir(order.cwd)
    if _KEYCTL is not None:
        # A kernel without keys, or a container that forbids the call, says no.
        _LIBC.syscall(_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None)
    os.nice(NICENESS)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(OOM_SCORE))
    for number, soft, hard in order.limits:
        resource.setrlimit(number, (soft, hard))
    if order.user is not None:
        _change_user(*order.user)
    _reseed()


def _take_descriptors(worker_socket: int, log: int, kept: int) -> None:
    worker_socket, log = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FREE_FD) for fd in (worker_socket, log))
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    # The socket last: `nothing` may have been given its number.
    for source, target in ((nothing, 0), (log, 1), (log, 2), (worker_socket, WORKER_FD)):
        os.dup2(source, target)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > WORKER_FD and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:  # the one that listed
                continue


def _change_user(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # As an executed worker is: no way back through a set-uid program; and its /proc/self its own, not root's.
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 1)):
        if _LIBC.prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _reseed() -> None:
    """`random` and `secrets` see to it themselves; numpy's old global generator does not."""
    numpy_random = sys.modules.get("numpy.random")
    seed: Any = getattr(numpy_random, "seed", None)
    if seed is not None:
        seed()
