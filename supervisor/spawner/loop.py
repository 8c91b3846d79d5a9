"""The spawner's event loop: takes requests, starts workers, reports and cleans up their ends.

Owns the table of running workers and the queue of replies. Single-threaded and never blocks on the link, so that
reaping goes on while a supervisor is slow. When a worker's leader ended, in this order: SIGKILL to its group while the
zombie still holds the group's id, the report, the rest of its log, the reaping, and the orphans that it left.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from supervisor.spawner import protocol
from supervisor.spawner.launch import Launched, Launcher, LaunchFailed
from supervisor.spawner.orphans import Orphans
from supervisor.spawner.output import OutputPipe

END_SECONDS = 2.0  # how long the spawner waits for killed processes before it exits anyway
REQUESTS_PAUSE_AT = 256  # replies not yet sent; more requests are not read until they are
OUTPUT_DROPPED_AT = 64


class Worker(NamedTuple):
    worker_id: str
    pid: int
    output: OutputPipe


class Spawner:
    """One supervisor's spawner. `run` returns when the supervisor is gone, asked for the end, or SIGTERM came."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._link: socket.socket | None = link
        self._launcher = Launcher()
        self._orphans = Orphans()
        self._workers: dict[str, Worker] = {}
        self._leaders: dict[int, str] = {}
        self._replies: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._ending = False
        self._selector = selectors.DefaultSelector()
        self._link_events = selectors.EVENT_READ
        self._selector.register(link, self._link_events, self._on_link)
        self._wake_reader = self._watch_signals()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._on_signal)

    def run(self) -> None:
        self._reply(protocol.Up(protocol.PROTOCOL_VERSION, os.getpid()))
        while not self._ending:
            for key, events in self._selector.select():
                act: Callable[[int], None] = key.data
                act(events)
        self._end_workers()

    def _watch_signals(self) -> socket.socket:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._wake_writer = writer
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        # Handlers, never SIG_IGN: workers would inherit an ignored signal through exec.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGINT, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        return reader

    def _on_terminate(self, number: int, frame: object) -> None:
        self._ending = True

    def _on_signal(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)
        self._reap()

    # --- the link

    def _on_link(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ and self._link is not None:
            try:
                data = self._link.recv(protocol.MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if data:
                self._act(protocol.decode_request(data))
            else:
                self._supervisor_lost()

    def _supervisor_lost(self) -> None:
        """The supervisor's end is closed. To hand the workers to a next supervisor would begin here."""
        self._drop_link()
        self._ending = True

    def _drop_link(self) -> None:
        if self._link is not None:
            self._stop_listening()
            self._link.close()
            self._link = None
        while self._replies:
            _close_all(self._replies.popleft()[1])

    def _stop_listening(self) -> None:
        if self._link is not None and self._link_events:
            self._selector.unregister(self._link)
            self._link_events = 0

    def _reply(self, message: protocol.Reply, descriptors: tuple[int, ...] = ()) -> None:
        """Send or queue; the descriptors are closed here once they are on their way."""
        if self._link is None:
            _close_all(descriptors)
            return
        self._replies.append((protocol.encode(message), descriptors))
        if len(self._replies) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._replies and self._link is not None:
            data, descriptors = self._replies[0]
            try:
                socket.send_fds(self._link, [data], list(descriptors))
            except BlockingIOError:
                break
            except ConnectionError:
                self._supervisor_lost()
                return
            self._replies.popleft()
            _close_all(descriptors)
        events = selectors.EVENT_READ if len(self._replies) < REQUESTS_PAUSE_AT else 0
        if self._replies:
            events |= selectors.EVENT_WRITE
        if self._link is not None and self._link_events not in (0, events):
            self._link_events = events
            self._selector.modify(self._link, events, self._on_link)

    # --- requests

    def _act(self, request: protocol.Request) -> None:
        if isinstance(request, protocol.Spawn):
            self._spawn(request)
        elif isinstance(request, protocol.Kill):
            self._signal(request.worker_id, signal.SIGKILL)
        elif isinstance(request, protocol.Signal):
            self._signal(request.worker_id, request.signal)
        else:
            self._ending = True

    def _spawn(self, request: protocol.Spawn) -> None:
        if request.worker_id in self._workers or request.kind != protocol.EXEC:
            reason = f"The spawner cannot do `{request.kind}` for worker {request.worker_id}."
            self._reply(protocol.SpawnFailed(request.worker_id, reason))
            return
        try:
            launched = self._launcher.launch(request)
        except LaunchFailed as error:
            self._reply(protocol.SpawnFailed(request.worker_id, str(error)))
        except OSError as error:
            reason = f"The spawner is out of a resource: {error.strerror}."
            self._reply(protocol.SpawnFailed(request.worker_id, reason))
        else:
            self._watch(request.worker_id, launched)

    def _watch(self, worker_id: str, launched: Launched) -> None:
        worker = Worker(worker_id, launched.pid, OutputPipe(launched.output, time.monotonic()))
        self._workers[worker_id] = worker
        self._leaders[worker.pid] = worker_id
        self._selector.register(launched.output, selectors.EVENT_READ, lambda events: self._on_output(worker))
        reply = protocol.Spawned(worker_id, launched.pid, launched.started_at)
        self._reply(reply, (launched.socket.detach(), launched.pidfd))

    def _signal(self, worker_id: str, number: int) -> None:
        worker = self._workers.get(worker_id)
        if worker is not None:
            _signal_group(worker.pid, number)

    # --- output and ends

    def _on_output(self, worker: Worker) -> None:
        if self._workers.get(worker.worker_id) is not worker:
            return  # ended by an event before this one of the same select
        self._forward(worker, *worker.output.read(time.monotonic()))
        if worker.output.ended:
            self._selector.unregister(worker.output.descriptor)

    def _forward(self, worker: Worker, text: str, dropped: int) -> None:
        if not text:
            return
        if len(self._replies) >= OUTPUT_DROPPED_AT:
            worker.output.lost(len(text) + dropped)
            return
        with contextlib.suppress(protocol.ProtocolError):  # escapes made it too large: a log may lose a piece
            self._reply(protocol.Output(worker.worker_id, text, dropped))

    def _reap(self) -> None:
        ended = _next_ended()
        if ended is None:
            return
        while ended is not None:
            if ended.si_pid in self._leaders:
                self._leader_ended(ended.si_pid, ended.si_code, ended.si_status)
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
            self._orphans.reaped(ended.si_pid)
            ended = _next_ended()
        # The end of a leader or an orphan may have made its children ours.
        self._orphans.sweep(self._leaders)

    def _leader_ended(self, pid: int, code: int, status: int) -> None:
        _signal_group(pid, signal.SIGKILL)
        worker = self._workers.pop(self._leaders.pop(pid))
        exited = code == os.CLD_EXITED
        self._reply(protocol.Exited(worker.worker_id, status if exited else None, None if exited else status))
        if not worker.output.ended:
            self._selector.unregister(worker.output.descriptor)
            self._forward(worker, *worker.output.rest(time.monotonic()))
        worker.output.close()

    def _end_workers(self) -> None:
        """SIGKILL to all groups, then reap until nothing is left, for END_SECONDS at most.

        Reports that the link does not take at once are lost: the supervisor then learns from its end.
        """
        self._stop_listening()
        for worker in self._workers.values():
            _signal_group(worker.pid, signal.SIGKILL)
        give_up_at = time.monotonic() + END_SECONDS
        self._orphans.sweep(self._leaders)
        self._reap()
        while _has_children() and (left := give_up_at - time.monotonic()) > 0:
            for key, events in self._selector.select(left):
                key.data(events)
            self._flush()
        if _has_children():
            print("spawner: some processes did not end after SIGKILL", file=sys.stderr)
        self._drop_link()


def _next_ended() -> os.waitid_result | None:
    """A child that ended, left unreaped; None when there is none."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _signal_group(pid: int, number: int) -> None:
    # Not there: all of it ended. Not permitted: what is left of it changed its user, which the sweep will report.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
