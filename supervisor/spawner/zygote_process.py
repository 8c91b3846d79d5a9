"""One zygote: a worker program that has been loaded once and forks workers (`lobu_actors.worker.zygote` is its side).

Owns how it is started, what goes over its socket, and the ends of sockets and pipes of the workers that were ordered
and did not answer yet. Decides nothing: it is `zygotes` that reacts to what comes.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from supervisor.spawner.confine import Confinement
from supervisor.spawner.launch import Launched, started_at
from supervisor.spawner.output import OutputPipe
from supervisor.spawner.protocol import MARK, WORKER_FD, Spawn

FD_VARIABLE = "LOBU_ZYGOTE_FD"
ROOM_VARIABLE = "LOBU_ZYGOTE_ROOM"  # of no meaning but its size
ROOM_BYTES = 8 * 1024  # for a worker's own variables, in the memory that /proc/<pid>/environ shows
NO_HOME = "/nonexistent"  # each worker has its own; what is loaded must not depend on one
MAX_IN_FLIGHT = 16
_MESSAGE_BYTES = 64 * 1024

Message = dict[str, Any]


class Ticket(NamedTuple):
    """A worker that was ordered: what was asked for, and our ends of its socket and log."""

    request: Spawn
    socket: socket.socket
    output: int

    def close(self) -> None:
        self.socket.close()
        os.close(self.output)


class ZygoteProcess:
    """Orders beyond MAX_IN_FLIGHT wait here, since they are taken one after another and its socket holds few.

    Starts on construction, which raises OSError and ValueError. `pid` is ours until the loop has reaped it.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output, output_end = os.pipe2(os.O_CLOEXEC)
        own = {"HOME": NO_HOME, FD_VARIABLE: str(theirs.fileno()), ROOM_VARIABLE: "-" * ROOM_BYTES}
        try:
            process = subprocess.Popen(
                list(argv),
                env={**env, **own},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output_end,
                stderr=output_end,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(output_end)
        process.returncode = 0  # the loop reaps it
        ours.setblocking(False)
        os.set_blocking(output, False)
        self.pid = process.pid
        self.name = f"zygote-{process.pid}"
        self.started_at = started_at(process.pid)  # seconds since boot
        self.parked = False
        self._tickets: dict[str, Ticket] = {}
        self._waiting: dict[str, tuple[Spawn, Confinement]] = {}
        self.asked_at = time.monotonic()  # when it was last without an answer to give; only while orders are open
        self.last_line = ""
        self._link: socket.socket | None = ours
        self._output = OutputPipe(output, time.monotonic())
        self._selector: selectors.BaseSelector | None = None

    def watch(
        self, selector: selectors.BaseSelector, on_message: Callable[[], None], on_output: Callable[[], None]
    ) -> None:
        assert self._link is not None
        self._selector = selector
        selector.register(self._link, selectors.EVENT_READ, lambda events: on_message())
        selector.register(self._output.descriptor, selectors.EVENT_READ, lambda events: on_output())

    @property
    def ordered(self) -> set[str]:
        """The ids of the workers that it owes an answer for."""
        return {*self._tickets, *self._waiting}

    def order(self, request: Spawn, confinement: Confinement) -> bool:
        """Ask for a worker, never blocking; False when that cannot be."""
        if self._link is None:
            return False
        if len(self._tickets) >= MAX_IN_FLIGHT:
            self._waiting[request.worker_id] = request, confinement
            return True
        try:
            return self._send(self._link, request, confinement)
        except OSError:  # out of descriptors
            return False

    def order_waiting(self) -> list[Spawn]:
        """Ask for those that waited, as many as may be asked for now; gives those that could not."""
        failed: list[Spawn] = []
        while self._waiting and len(self._tickets) < MAX_IN_FLIGHT:
            request, confinement = self._waiting.pop(next(iter(self._waiting)))
            if not self.order(request, confinement):
                failed.append(request)
        return failed

    def give_up(self) -> list[Spawn]:
        """No answer is expected any more; gives what was ordered, in that order."""
        requests = [ticket.request for ticket in self._tickets.values()]
        requests += [request for request, _confinement in self._waiting.values()]
        for ticket in self._tickets.values():
            ticket.close()
        self._tickets, self._waiting = {}, {}
        return requests

    def _send(self, link: socket.socket, request: Spawn, confinement: Confinement) -> bool:
        environment = {**request.env, "LOBU_WORKER_FD": str(WORKER_FD), MARK: request.worker_id}
        limits, user = confinement
        order = {
            "worker_id": request.worker_id,
            "env": environment,
            "cwd": request.cwd,
            "limits": limits,
            "user": user,
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            output, output_end = os.pipe2(os.O_CLOEXEC)
        except OSError:
            ours.close()
            theirs.close()
            raise
        ticket = Ticket(request, ours, output)
        try:
            ours.setblocking(False)
            os.set_blocking(output, False)
            socket.send_fds(link, [json.dumps(order).encode()], [theirs.fileno(), output_end])
        except OSError:  # the order is too large, or it is gone
            ticket.close()
            return False
        finally:
            theirs.close()
            os.close(output_end)
        if not self._tickets:
            self.asked_at = time.monotonic()
        self._tickets[request.worker_id] = ticket
        return True

    def messages(self) -> Iterator[Message]:
        """What it has said since; the last one is {"type": "closed"} when it closed its end."""
        while self._link is not None:
            try:
                data = self._link.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                yield {"type": "closed"}
                return
            with contextlib.suppress(ValueError):
                message = json.loads(data)
                if isinstance(message, dict):
                    yield message

    def take(self, worker_id: object) -> Ticket | None:
        """The ticket that an answer is about, which is the caller's from now on."""
        self.asked_at = time.monotonic()
        return self._tickets.pop(worker_id, None) if isinstance(worker_id, str) else None

    def read_output(self) -> tuple[str, int]:
        """Whole lines that it wrote, and the number of bytes that were dropped before them."""
        text, dropped = self._output.read(time.monotonic())
        if self._output.ended:
            self._unregister(self._output.descriptor)
        self._remember(text)
        return text, dropped

    def close_link(self) -> None:
        """Which ends a zygote that looks at it."""
        if self._link is not None:
            self._unregister(self._link)
            self._link.close()
            self._link = None

    def kill(self) -> None:
        """SIGKILL to its group: itself, who waits for an order, and workers that are not yet all that they will be.

        Only before it is reaped."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> tuple[str, int]:
        """After its end: closes all; gives the rest of its output as `read_output` does."""
        self.close_link()
        if not self._output.ended:
            self._unregister(self._output.descriptor)
        text, dropped = self._output.rest(time.monotonic())
        self._remember(text)
        self._output.close()
        return text, dropped

    def _remember(self, text: str) -> None:
        lines = text.split("\n")
        self.last_line = next((line.strip() for line in reversed(lines) if line.strip()), self.last_line)

    def _unregister(self, what: socket.socket | int) -> None:
        if self._selector is not None:
            self._selector.unregister(what)


def launched(ticket: Ticket, pid: int) -> Launched:
    """The worker that was forked for this ticket, whose descriptors it takes over. Raises OSError."""
    return Launched(pid, started_at(pid), ticket.socket, os.pidfd_open(pid), ticket.output)
