"""The spawner's event loop: takes requests, starts workers, reports and cleans up their ends, hands them over.

Owns the table of running workers. Single-threaded and never blocks on the link, so that reaping goes on while a
supervisor is slow or away. Each worker's socket and pidfd are kept here too: a supervisor that dies takes nothing with
it, and the next one is given every worker that still runs, with the label that the one before gave it.

When a worker's leader ended, in this order: SIGKILL to its group while the zombie still holds the group's id, the
report, the reaping; and when all that ended have come so far, the rest of its log, what was kept of it here, and the
orphans that it left. Somebody waits for the report, and nobody for the rest.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable

from supervisor.spawner import protocol
from supervisor.spawner.cgroups import Cgroups
from supervisor.spawner.launch import Launched, Launcher, LaunchFailed
from supervisor.spawner.orphans import Orphans
from supervisor.spawner.output import OutputPipe
from supervisor.spawner.records import Record, Records
from supervisor.spawner.uplink import Uplink
from supervisor.spawner.zygotes import Zygotes

END_SECONDS = 2.0  # how long the spawner waits for killed processes before it exits anyway
OUTPUT_DROPPED_AT = 64
LONGEST_WAIT_SECONDS = 3600.0  # the kernel takes no wait of years


class Worker:
    """A running worker. Its descriptors are ours until `close`."""

    def __init__(self, worker_id: str, label: str, launched: Launched) -> None:
        self.worker_id = worker_id
        self.label = label
        self.pid = launched.pid
        self.started_at = launched.started_at
        self.socket = launched.socket
        self.pidfd = launched.pidfd
        self.output = OutputPipe(launched.output, time.monotonic())

    @property
    def freezes(self) -> bool:
        """Without a label it works for no conversation: the test of a starting supervisor, or a worker kept ready."""
        return self.label != ""

    @property
    def descriptors(self) -> tuple[int, int]:
        """What a supervisor is given of it."""
        return self.socket.fileno(), self.pidfd

    def close(self) -> None:
        self.socket.close()
        os.close(self.pidfd)
        self.output.close()


class Spawner:
    """`run` returns when a supervisor asked for the end, none came in time, or SIGTERM came; all workers are ended.

    `beat` is called in each round, and gives the seconds within which it must be called again; None: it need not.
    """

    def __init__(
        self,
        listener: socket.socket,
        records: Records,
        cgroups: Cgroups,
        abandon_seconds: float,
        beat: Callable[[], float | None],
    ) -> None:
        self._beat = beat
        self._launcher = Launcher()
        self._orphans = Orphans()
        self._records = records
        self._cgroups = cgroups
        self._workers: dict[str, Worker] = {}
        self._leaders: dict[int, str] = {}
        self._trusted_until: float | None = None
        self._frozen = False
        self._ending = False
        self._hung_up = False
        self._selector = selectors.DefaultSelector()
        self._uplink = Uplink(
            listener,
            self._selector,
            on_connected=self._hand_over,
            on_request=self._act,
            on_lost=self._supervisor_lost,
            abandon_seconds=abandon_seconds,
        )
        self._zygotes = Zygotes(
            self._selector, records, fork_done=self._fork_done, notice=self._tell, output=self._forward_of_zygote
        )
        self._wake_reader = self._watch_signals()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._on_signal)

    def run(self) -> None:
        while not self._ending:
            patience = _sooner(self._uplink.patience(), self._zygotes.patience(), self._trust())
            wait = _sooner(patience, self._beat(), LONGEST_WAIT_SECONDS)
            for key, events in self._selector.select(wait):
                act: Callable[[int], None] = key.data
                act(events)
            self._zygotes.expire()
            if self._trust() == 0:
                self._freeze()
            if self._hung_up:
                self._hung_up = False
                self._zygotes.replace_all()
            if self._uplink.patience() == 0:
                print(f"spawner: no supervisor came; {len(self._workers)} workers are ended", file=sys.stderr)
                self._ending = True
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
        signal.signal(signal.SIGHUP, self._on_hangup)
        return reader

    def _on_terminate(self, number: int, frame: object) -> None:
        self._ending = True

    def _on_hangup(self, number: int, frame: object) -> None:
        self._hung_up = True

    def _on_signal(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)
        self._reap()

    # --- requests

    def _hand_over(self) -> None:
        self._zygotes.forget_preloads()
        self._uplink.reply(protocol.Up(protocol.PROTOCOL_VERSION, os.getpid(), len(self._workers), pongs=True))
        for worker in self._workers.values():
            running = protocol.Running(worker.worker_id, worker.pid, worker.started_at, worker.label)
            self._uplink.reply(running, worker.descriptors)

    def _act(self, request: protocol.Request) -> None:
        if isinstance(request, protocol.Spawn):
            if self._uplink.connected:  # else whoever asked is gone
                self._spawn(request)
        elif isinstance(request, protocol.Preload):
            self._zygotes.preload(request)
        elif isinstance(request, protocol.Relabel):
            if (worker := self._workers.get(request.worker_id)) is not None:
                worker.label = request.label
                self._keep_frozen(worker)
        elif isinstance(request, protocol.Trust):
            self._trusted_until = request.until
        elif isinstance(request, protocol.Thaw):
            self._thaw(request.until)
        elif isinstance(request, protocol.Ping):
            self._uplink.reply(protocol.Pong())
        elif isinstance(request, protocol.Kill):
            if request.worker_id in self._workers:
                _signal_group(self._workers[request.worker_id].pid, signal.SIGKILL)
        else:
            self._ending = True

    def _spawn(self, request: protocol.Spawn) -> None:
        if request.worker_id in self._workers or request.worker_id in self._zygotes.ordered:
            reason = f"There is a worker {request.worker_id} already."
            self._uplink.reply(protocol.SpawnFailed(request.worker_id, reason))
            return
        if request.kind != protocol.ZYGOTE or not self._zygotes.spawn(request):
            self._execute(request)

    def _fork_done(self, request: protocol.Spawn, launched: Launched | None) -> None:
        if launched is None:
            self._execute(request)
        else:
            self._watch(request, launched)

    def _execute(self, request: protocol.Spawn) -> None:
        try:
            launched = self._launcher.launch(request)
        except LaunchFailed as error:
            self._uplink.reply(protocol.SpawnFailed(request.worker_id, str(error)))
        except OSError as error:
            reason = f"The spawner is out of a resource: {error.strerror}."
            self._uplink.reply(protocol.SpawnFailed(request.worker_id, reason))
        else:
            self._watch(request, launched)

    def _watch(self, request: protocol.Spawn, launched: Launched) -> None:
        worker = Worker(request.worker_id, request.label, launched)
        self._workers[worker.worker_id] = worker
        self._leaders[worker.pid] = worker.worker_id
        self._selector.register(launched.output, selectors.EVENT_READ, lambda events: self._on_output(worker))
        self._uplink.reply(protocol.Spawned(worker.worker_id, worker.pid, worker.started_at), worker.descriptors)
        try:
            self._records.add(Record(worker.worker_id, worker.pid, worker.started_at))
            self._cgroups.enter(worker.worker_id, worker.pid)
        except OSError as error:
            print(f"spawner: worker {worker.worker_id} is not on record, or in no group: {error}", file=sys.stderr)
        self._keep_frozen(worker)

    def _trust(self) -> float | None:
        """Seconds until the workers are to be frozen; None when nobody said so, or they are."""
        if self._trusted_until is None or self._frozen:
            return None
        return max(0.0, self._trusted_until - time.monotonic())

    def _supervisor_lost(self) -> None:
        """Where several hosts are, another may take its place within the second."""
        if self._trusted_until is not None:
            self._freeze()

    def _freeze(self) -> None:
        """Another host may take this one's conversations over from now on: nothing here may go on meanwhile."""
        self._frozen = True
        self._uplink.reply(protocol.Froze())
        for worker in self._workers.values():
            self._keep_frozen(worker)

    def _keep_frozen(self, worker: Worker) -> None:
        if self._frozen and worker.freezes:
            _signal_group(worker.pid, signal.SIGSTOP)

    def _thaw(self, until: float | None) -> None:
        self._trusted_until, self._frozen = until, False
        for worker in self._workers.values():
            _signal_group(worker.pid, signal.SIGCONT)

    # --- output and ends

    def _on_output(self, worker: Worker) -> None:
        if self._workers.get(worker.worker_id) is not worker:
            return  # ended by an event before this one of the same select
        self._forward(worker, *worker.output.read(time.monotonic()))
        if worker.output.ended:
            self._selector.unregister(worker.output.descriptor)

    def _forward_of_zygote(self, name: str, text: str, dropped: int) -> None:
        if text and self._uplink.queued < OUTPUT_DROPPED_AT:
            with contextlib.suppress(protocol.ProtocolError):
                self._uplink.reply(protocol.Output(name, text, dropped))

    def _tell(self, text: str) -> None:
        if self._uplink.connected:
            self._uplink.reply(protocol.Notice(text))
        else:
            print(f"spawner: {text}", file=sys.stderr)

    def _forward(self, worker: Worker, text: str, dropped: int) -> None:
        if not text:
            return
        if not self._uplink.connected or self._uplink.queued >= OUTPUT_DROPPED_AT:
            worker.output.lost(len(text) + dropped)
            return
        with contextlib.suppress(protocol.ProtocolError):  # escapes made it too large: a log may lose a piece
            self._uplink.reply(protocol.Output(worker.worker_id, text, dropped))

    def _reap(self) -> None:
        ended = _next_ended()
        if ended is None:
            return
        reported: list[Worker] = []
        while ended is not None:
            if ended.si_pid not in self._leaders:
                self._zygotes.drain()  # it may be a worker that lived shorter than we looked away
            if ended.si_pid in self._leaders:
                reported.append(self._leader_ended(ended.si_pid, ended.si_code, ended.si_status))
            elif ended.si_pid in self._zygotes.leaders:
                self._zygotes.ended(ended.si_pid, ended.si_code, ended.si_status)
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
            self._orphans.reaped(ended.si_pid)
            ended = _next_ended()
        if reported:
            # Who sends over a socket is taken to sleep next: the supervisor was woken on this very CPU, and would wait
            # for as long as the rest takes.
            os.sched_yield()
        for worker in reported:
            self._clear(worker)
        # The end of a leader or an orphan may have made its children ours.
        self._sweep()
        self._cgroups.sweep()

    def _sweep(self) -> None:
        self._orphans.sweep(self._leaders, self._zygotes.leaders, self._zygotes.ordered)

    def _leader_ended(self, pid: int, code: int, status: int) -> Worker:
        _signal_group(pid, signal.SIGKILL)
        worker = self._workers.pop(self._leaders.pop(pid))
        self._cgroups.end(worker.worker_id)
        exited = code == os.CLD_EXITED
        self._uplink.reply(protocol.Exited(worker.worker_id, status if exited else None, None if exited else status))
        return worker

    def _clear(self, worker: Worker) -> None:
        if not worker.output.ended:
            self._selector.unregister(worker.output.descriptor)
            self._forward(worker, *worker.output.rest(time.monotonic()))
        worker.close()
        self._records.remove(worker.worker_id)

    def _end_workers(self) -> None:
        """SIGKILL to all groups, then reap until nothing is left, for END_SECONDS at most.

        Reports that the link does not take at once are lost: the supervisor then learns from its end.
        """
        self._uplink.stop_taking()
        self._zygotes.end()
        for worker in self._workers.values():
            _signal_group(worker.pid, signal.SIGKILL)
        give_up_at = time.monotonic() + END_SECONDS
        self._sweep()
        self._reap()
        while _has_children() and (left := give_up_at - time.monotonic()) > 0:
            for key, events in self._selector.select(left):
                key.data(events)
            self._uplink.flush()
        if _has_children():
            print("spawner: some processes did not end after SIGKILL", file=sys.stderr)
        self._cgroups.sweep()
        self._uplink.drop()


def _sooner(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)


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
