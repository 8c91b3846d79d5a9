"""`python -m supervisor.spawner --socket-fd N`: serves one supervisor on an inherited SOCK_SEQPACKET unix socket.

Owns the process-wide set-up: subreaper, signal mask and dispositions. Exits 0 when the supervisor closed its end, asked
for the end, or SIGTERM came, with all workers ended; 2 on wrong usage.
"""

import fcntl
import gc
import signal
import socket
import sys

from supervisor.spawner.loop import Spawner
from supervisor.spawner.orphans import become_subreaper
from supervisor.spawner.protocol import WORKER_FD

_USAGE = "usage: python -m supervisor.spawner --socket-fd N    (N: a connected SOCK_SEQPACKET unix socket)"


def _link(arguments: list[str]) -> socket.socket:
    if len(arguments) != 2 or arguments[0] != "--socket-fd" or not arguments[1].isdecimal():
        print(_USAGE, file=sys.stderr)
        raise SystemExit(2)
    try:
        link = socket.socket(fileno=int(arguments[1]))
    except OSError as error:
        print(f"spawner: descriptor {arguments[1]} is no socket: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from error
    if link.fileno() <= WORKER_FD:
        moved = fcntl.fcntl(link, fcntl.F_DUPFD_CLOEXEC, WORKER_FD + 1)
        link.close()
        link = socket.socket(fileno=moved)
    link.set_inheritable(False)
    return link


def _clean_signals() -> None:
    """Undo what was inherited, so that no worker inherits it; Python itself ignores SIGPIPE and exec restores that."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def main() -> None:
    link = _link(sys.argv[1:])
    _clean_signals()
    become_subreaper()
    spawner = Spawner(link)
    gc.freeze()
    spawner.run()


if __name__ == "__main__":
    main()
