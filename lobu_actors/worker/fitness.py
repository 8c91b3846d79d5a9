"""Whether a process may be forked: one thread, nothing open, no children, and a fork of it works as a worker.

Owns the reasons why not, each one sentence's end for the operator. Loaded by zygotes only.
"""

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

TRIAL_SECONDS = 5.0
TRIAL_ID = "00000000-0000-0000-0000-000000000000"
_HELLO = {
    "type": "hello",
    "protocol": 1,
    "workerId": TRIAL_ID,
    "organizationId": "",
    "agentId": "",
    "conversationId": "",
    "workspace": "/",
    "sessionFile": "/session.jsonl",
    "settings": {},
    "deadlines": {},
}


class Unfit(Exception):
    """The text completes the sentence: it is not forked because …"""


def check_process(link: int) -> None:
    """Raises Unfit for threads, descriptors other than `link`, and children."""
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        names = ", ".join(sorted({thread.name for thread in threading.enumerate()} - {"MainThread"}))
        raise Unfit(f"its module starts {len(threads) - 1} threads when imported ({names or 'not of Python'})")
    for number in sorted(map(int, os.listdir("/proc/self/fd"))):
        if number > 2 and number != link:
            try:
                target = os.readlink(f"/proc/self/fd/{number}")
            except OSError:  # the one that listed
                continue
            raise Unfit(f"its module opens {target} when imported, which all workers would share")
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    raise Unfit("its module starts a process when imported")


def try_fork(become: Callable[[int], None]) -> bool:
    """Fork and have the child go through a worker's life without a turn; True in the child, which is to go on with it.

    `become` is given the child's end of its socket and makes a worker of the child. Raises Unfit.
    """
    ours, theirs = socket.socketpair()
    faults: list[BaseException | None] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda fault: faults.append(fault.exc_value)
    try:
        pid = os.fork()
    finally:
        sys.unraisablehook = hook
    if pid == 0:
        ours.detach()
        if faults:
            print(f"a fork hook failed: {faults[0]!r}", file=sys.stderr, flush=True)
            os._exit(70)
        become(theirs.detach())
        return True
    with ours:
        theirs.close()
        try:
            _watch(ours, pid)
        finally:
            _end(pid)
    if faults:
        raise Unfit(f"it breaks on fork: a fork hook failed: {faults[0]!r}")
    return False


def _watch(link: socket.socket, pid: int) -> None:
    deadline = time.monotonic() + TRIAL_SECONDS
    link.settimeout(TRIAL_SECONDS)
    try:
        link.sendall(_line(_HELLO))
        heard = b""
        while b'"ready"' not in heard:
            data = link.recv(4096)
            if not data:
                raise Unfit(f"it breaks on fork: {_told(_wait(pid, deadline))}")
            heard += data
        with open(f"/proc/{pid}/environ", "rb") as file:
            if TRIAL_ID.encode() not in file.read():
                raise Unfit("its forks could not be told apart: the environment of a process cannot be changed")
        link.sendall(_line({"type": "shutdown", "graceSeconds": TRIAL_SECONDS}))
    except TimeoutError:
        raise Unfit(f"it breaks on fork: a fork was not ready within {TRIAL_SECONDS:g} s") from None
    except ConnectionError:
        raise Unfit(f"it breaks on fork: {_told(_wait(pid, deadline))}") from None
    how = _wait(pid, deadline)
    if how is None or how.si_code != os.CLD_EXITED or how.si_status != 0:
        raise Unfit(f"it breaks on fork: {_told(how)} when it was told to end")


def _line(frame: dict[str, Any]) -> bytes:
    return json.dumps(frame).encode() + b"\n"


def _wait(pid: int, deadline: float) -> os.waitid_result | None:
    """How the child ended, left unreaped; None when it did not in time."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    finally:
        os.close(pidfd)
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def _told(how: os.waitid_result | None) -> str:
    if how is None:
        return f"a fork did not end within {TRIAL_SECONDS:g} s"
    if how.si_code == os.CLD_EXITED:
        return f"a fork exited with code {how.si_status}"
    return f"a fork was ended by signal {how.si_status}"


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
