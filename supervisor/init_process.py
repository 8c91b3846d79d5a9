"""What is owed by a process whose id is 1, as the first one of a container has it: it reaps whom nobody else waits for,
and passes signals on, since the kernel gives it none that it does not handle.

The same as what `tini` and `docker run --init` do, so that a container of `lobu run` needs neither.
"""

from __future__ import annotations

import os
import signal

# The kernel sends these for what the process itself did; blocked, they would end it all the same.
_OF_ITS_OWN = {signal.SIGILL, signal.SIGTRAP, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS}
_BY_SOMEBODY = 0  # a signal's code is above it when it comes from the kernel: its terminal told the whole group


def leave_process_one() -> None:
    """As process 1: fork and return in the child. What remains as process 1 ends with the child, and as it did.

    Call it before there are threads.
    """
    if os.getpid() != 1:
        return
    watched = signal.valid_signals() - _OF_ITS_OWN
    held = signal.pthread_sigmask(signal.SIG_BLOCK, watched)  # until each of the two is ready for them
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return
    while True:
        heard = signal.sigwaitinfo(watched)
        if heard.si_signo == signal.SIGCHLD:
            _reap(child)
        elif heard.si_code <= _BY_SOMEBODY:
            os.kill(child, heard.si_signo)


def _reap(child: int) -> None:
    """Everybody who has ended; with `child`, process 1 ends too, and with it whoever is left in its namespace."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
