"""The service manager's side of a process: readiness, status, watchdog, and the sockets that it passes.

Standard library only, and never blocks: the spawner and a trio loop use it alike. Where no service manager started this
process, everything here does nothing. The protocols are those of sd_notify(3) and sd_listen_fds(3).
"""

import os
import socket
import time
from collections.abc import MutableMapping

FIRST_DESCRIPTOR = 3
_MICROSECONDS = 1_000_000


class Notifier:
    """Tells the service manager how this process is. A message that cannot be sent is dropped: nobody here can help."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Takes the variables out of `environment`, so that no child speaks in this process's name."""
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        pid, microseconds = environment.pop("WATCHDOG_PID", ""), environment.pop("WATCHDOG_USEC", "")
        meant = microseconds.isdecimal() and pid in ("", str(os.getpid()))
        self._watchdog_seconds = int(microseconds) / _MICROSECONDS if meant and self._address else None
        self._next_beat = 0.0

    @property
    def beat_seconds(self) -> float | None:
        """How often `beat` is to be called: half of what the service manager waits; None: it does not wait for it."""
        return None if self._watchdog_seconds is None else self._watchdog_seconds / 2

    def ready(self, status: str) -> None:
        """Everything that others may want of this process works from now on."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def reloading(self, status: str) -> None:
        """The configuration is being read again; `ready` says when that is over."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def extend(self, seconds: float) -> None:
        """What is going on (a start, a stop) takes up to this much longer from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}")

    def beat(self) -> float | None:
        """Say that this process is alive, if it is time to; gives the seconds until it is again. None: never."""
        period = self.beat_seconds
        if period is None:
            return None
        now = time.monotonic()
        if now >= self._next_beat:
            self._send("WATCHDOG=1")
            self._next_beat = now + period
        return self._next_beat - now

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            try:
                out.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return


def passed_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that the service manager opened for this process; closed on exec. Call it once."""
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    found = [socket.socket(fileno=number) for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))]
    for one in found:
        one.set_inheritable(False)
    return found
