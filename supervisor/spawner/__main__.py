"""`python -m supervisor.spawner --folder DIR`: serves supervisors on the listening socket that it was given.

The socket is a SOCK_SEQPACKET unix socket, by default the descriptor under which systemd passes one, so that a
supervisor and a socket unit start it in the same way. Owns the process-wide set-up: subreaper, signal mask and
dispositions. Exits 0 when it was asked to end, SIGTERM came, or no supervisor came for too long, with all workers
ended; 2 on wrong usage, or when its folder cannot be used.
"""

import argparse
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TextIO, cast

from supervisor.descriptors import raise_descriptor_limit
from supervisor.lines import Lines
from supervisor.loading import loaded
from supervisor.spawner.cgroups import Cgroups, delegated
from supervisor.spawner.loop import Spawner
from supervisor.spawner.orphans import become_subreaper
from supervisor.spawner.protocol import WORKER_FD
from supervisor.spawner.records import SPAWNER, Records
from supervisor.systemd.notify import Notifier

LISTENER_FD = 3  # the first of systemd's protocol
ABANDON_SECONDS = 60.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m supervisor.spawner",
        description="Starts, watches and reaps the worker processes of one host.",
        epilog="example: systemd-socket-activate --seqpacket -l /run/lobu/spawner.sock "
        "python -m supervisor.spawner --folder /var/lib/lobu/spawner",
    )
    parser.add_argument("--folder", type=Path, required=True, help="where it keeps the records of what runs")
    parser.add_argument(
        "--listen-fd", type=int, default=LISTENER_FD, help="the socket (default 3, as systemd passes it)"
    )
    parser.add_argument(
        "--abandon-seconds",
        type=float,
        default=ABANDON_SECONDS,
        help=f"how long workers go on without a supervisor (default {ABANDON_SECONDS:g})",
    )
    return parser.parse_args()


def _listener(number: int) -> socket.socket:
    """The socket that was passed, moved out of the way of the workers' descriptor."""
    fault = f"spawner: descriptor {number} is no listening socket; a supervisor or a socket unit starts this program"
    try:
        listener = socket.socket(fileno=fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, WORKER_FD + 1))
        os.close(number)
        fits = listener.type is socket.SOCK_SEQPACKET and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise SystemExit(_refuse(f"{fault} ({error.strerror})")) from error
    if not fits:
        raise SystemExit(_refuse(fault))
    return listener


def _refuse(sentence: str) -> int:
    os.write(2, f"{sentence}\n".encode())
    return 2


def _clean_signals() -> None:
    """Undo what was inherited, so that no worker inherits it; Python itself ignores SIGPIPE and exec restores that."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def main() -> None:
    arguments = _arguments()
    sys.stderr = cast(TextIO, Lines(sys.stderr))
    notifier = Notifier(os.environ)
    listener = _listener(arguments.listen_fd)
    records = Records(arguments.folder)
    records.end_left_over()
    cgroups = Cgroups(delegated())
    cgroups.end_left_over()
    try:
        records.open()
    except OSError as error:
        raise SystemExit(_refuse(f"spawner: {arguments.folder} cannot be used ({error.strerror})")) from error
    _clean_signals()
    become_subreaper()
    raise_descriptor_limit()  # three a worker are kept here; workers get limits of their own
    spawner = Spawner(listener, records, cgroups, arguments.abandon_seconds, notifier.beat)
    loaded()
    notifier.ready("waits for a supervisor, or serves one")
    spawner.run()
    records.remove(SPAWNER)


if __name__ == "__main__":
    main()
