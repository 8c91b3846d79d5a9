"""One connection to one spawner process, on the supervisor's side: requests out, replies and descriptors in.

Owns the table of processes that this spawner runs and who waits for which reply. Lives as long as the spawner does;
`SpawnerLink` makes a new one for the next. Knows nothing of worker frames.
"""

import contextlib
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable

import attrs
import msgspec
import structlog
import trio

from supervisor.spawner import protocol

MAX_QUEUED_REQUESTS = 4096
MISSED_PINGS = 5  # in a row: who was paused with the spawner has missed one when it looks again
_ANCILLARY_BYTES = socket.CMSG_SPACE(protocol.FDS_OF_SPAWNED * 4)

_log = structlog.get_logger()


class SpawnFailed(Exception):
    """No process came to be; the text is one sentence for the operator."""


class SpawnerLost(Exception):
    """The spawner ended or was never there; its workers were ended with it."""


class Exit(msgspec.Struct, frozen=True):
    """How a process ended. `lost`: its spawner ended first, so its status is not known."""

    exit_code: int | None = None
    signal: int | None = None
    lost: bool = False


@attrs.define(eq=False)
class SpawnedProcess:
    """A worker process. `socket` is non-blocking; it and `pidfd` belong to the holder, who calls `close`.

    `exit` is set, `on_exit` called if there is one, and `wait` returns, as soon as the spawner's report is read.
    """

    worker_id: str
    pid: int
    started_at: float  # seconds since boot
    socket: socket.socket
    pidfd: int
    label: str = ""
    exit: Exit | None = None
    _reported: trio.Event | None = None  # while somebody waits
    on_exit: Callable[[], None] | None = None

    @property
    def is_alive(self) -> bool:
        """As the kernel says, ahead of any report."""
        return self.pidfd >= 0 and _is_alive(self.pidfd)

    def close(self) -> None:
        """Close socket and pidfd; may be called again."""
        self.socket.close()
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def end(self, how: Exit) -> None:
        if self.exit is None:
            self.exit = how
            if self._reported is not None:
                self._reported.set()
            if self.on_exit is not None:
                self.on_exit()

    async def wait(self) -> Exit:
        """Until its end was reported; the caller bounds that."""
        if self.exit is None:
            if self._reported is None:
                self._reported = trio.Event()
            await self._reported.wait()
        assert self.exit is not None
        return self.exit

    def kill(self) -> None:
        """SIGKILL to leader and group, past the spawner; nothing once the leader ended, whose group the spawner kills.

        Safe while nobody can have reaped the leader, which the pidfd proves.
        """
        if not self.is_alive:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # A stopped leader cannot end by itself between the check and the signal to its group.
            signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)
            os.killpg(self.pid, signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP to leader and group, past the spawner; nothing for who works for no conversation, or ended."""
        if self.label == "" or not self.is_alive:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)
            os.killpg(self.pid, signal.SIGSTOP)


@attrs.define(eq=False)
class _Pending:
    label: str
    done: trio.Event = attrs.field(factory=trio.Event)
    process: SpawnedProcess | None = None
    error: Exception | None = None


class Connection:
    """`serve` reads until the spawner is gone; the other methods may be called from any task meanwhile.

    `running` are the workers that an earlier supervisor had started; they are complete once `up` returned.
    """

    def __init__(self, link: socket.socket, on_frozen: Callable[[], None]) -> None:
        link.setblocking(False)
        self._link = link
        self._on_frozen = on_frozen
        self.is_lost = False
        self.processes: dict[str, SpawnedProcess] = {}
        self._pending: dict[str, _Pending] = {}
        self._requests: deque[bytes] = deque()
        self._queued = trio.Event()
        self.running: list[SpawnedProcess] = []
        self._to_come = 0
        self._up = trio.Event()
        self._pongs = False
        self._pong = trio.Event()
        self.pid = 0

    async def up(self) -> None:
        """Wait for the spawner's first words; the caller bounds the wait."""
        await self._up.wait()

    async def spawn(self, request: protocol.Spawn) -> SpawnedProcess:
        """Start a process; the caller bounds the wait. When cancelled, whatever comes of it is killed.

        Raises SpawnFailed, SpawnerLost.
        """
        if self.is_lost:
            raise SpawnerLost("The spawner is gone.")
        pending = _Pending(request.label)
        try:
            self._request(request)
        except protocol.ProtocolError as error:
            raise SpawnFailed(f"The command line and environment are too large: {error}.") from error
        self._pending[request.worker_id] = pending
        try:
            await pending.done.wait()
        except trio.Cancelled:
            self._abandon(request.worker_id, pending)
            raise
        if pending.process is None:
            raise pending.error or SpawnerLost("The spawner is gone.")
        return pending.process

    def relabel(self, worker_id: str, label: str) -> None:
        """What the next supervisor is told of a worker, when this one is gone; nothing when the worker is gone."""
        if worker_id in self.processes and not self.is_lost:
            self.processes[worker_id].label = label
            self._request(protocol.Relabel(worker_id, label))

    def preload(self, programs: Iterable[protocol.Preload]) -> None:
        """Have a zygote of each of these programs kept ready."""
        for program in programs:
            if not self.is_lost:
                # One that is too large for a message is so for a `Spawn`, which says it.
                with contextlib.suppress(protocol.ProtocolError):
                    self._request(program)

    def trust(self, until: float) -> None:
        """See `protocol.Trust`."""
        if not self.is_lost:
            self._request(protocol.Trust(until))

    def freeze(self) -> None:
        """What the spawner does when the trust is over, also when that stands still."""
        for process in self.processes.values():
            process.freeze()

    def thaw(self, until: float | None) -> None:
        """See `protocol.Thaw`."""
        if not self.is_lost:
            self._request(protocol.Thaw(until))

    def kill(self, worker_id: str) -> None:
        """SIGKILL to the worker's group; nothing when it is gone."""
        if worker_id in self.processes and not self.is_lost:
            self._request(protocol.Kill(worker_id))

    def request_end(self) -> None:
        """Ask the spawner to end all workers and itself."""
        if not self.is_lost:
            self._request(protocol.End())

    async def stuck(self, silent_seconds: float) -> None:
        """Return when the spawner has answered nothing for about so long; never when it answers no pings at all."""
        await self._up.wait()
        if not self._pongs:
            await trio.sleep_forever()
        missed = 0
        while missed < MISSED_PINGS:
            self._pong = trio.Event()
            if not self.is_lost:
                self._request(protocol.Ping())
            with trio.move_on_after(silent_seconds / MISSED_PINGS):
                await self._pong.wait()
                missed = 0
                await trio.sleep_forever()
            missed += not self._pong.is_set()

    async def serve(self) -> None:
        """Read replies and send queued requests until the spawner closes its end. Raises ProtocolError."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_queued)
            await self._read()
            nursery.cancel_scope.cancel()

    def lose(self) -> None:
        """Nothing comes from this spawner any more: end its workers by pidfd and tell everyone who waits."""
        if self.is_lost:
            return
        self.is_lost = True
        self._link.close()
        for pending in self._pending.values():
            pending.error = SpawnerLost("The spawner ended while it started the worker.")
            pending.done.set()
        self._pending.clear()
        for process in self.processes.values():
            process.kill()
            process.end(Exit(lost=True))
        self.processes.clear()

    def _abandon(self, worker_id: str, pending: _Pending) -> None:
        if self._pending.pop(worker_id, None) is None and pending.process is not None:
            # The reply was faster than the cancellation.
            self.kill(worker_id)
            pending.process.close()

    # --- out

    def _request(self, request: protocol.Request) -> None:
        data = protocol.encode(request)
        if not self._requests and self._try_send(data):
            return
        if len(self._requests) >= MAX_QUEUED_REQUESTS:
            _log.error("spawner.stuck", requests=len(self._requests))
            self._link.shutdown(socket.SHUT_RDWR)  # `serve` ends, and with it this connection
            return
        self._requests.append(data)
        self._queued.set()

    def _try_send(self, data: bytes) -> bool:
        try:
            self._link.send(data)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True  # the reader finds the end of the link and tells everyone
        return True

    async def _send_queued(self) -> None:
        while True:
            await self._queued.wait()
            self._queued = trio.Event()
            while self._requests:
                await trio.lowlevel.wait_writable(self._link)
                if self._try_send(self._requests[0]):
                    self._requests.popleft()

    # --- in

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._link)
            try:
                data, ancillary, _flags, _address = self._link.recvmsg(
                    protocol.MAX_MESSAGE_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                continue
            except ConnectionError:
                return
            if not data:
                return
            descriptors = _descriptors(ancillary)
            self._take(protocol.decode_reply(data), descriptors)

    def _take(self, reply: protocol.Reply, descriptors: list[int]) -> None:
        if isinstance(reply, protocol.Exited):
            process = self.processes.pop(reply.worker_id, None)
            if process is not None:
                process.end(Exit(reply.exit_code, reply.signal))
        elif isinstance(reply, protocol.Spawned):
            self._spawned(reply, descriptors)
        elif isinstance(reply, protocol.SpawnFailed):
            pending = self._pending.pop(reply.worker_id, None)
            if pending is not None:
                pending.error = SpawnFailed(reply.reason)
                pending.done.set()
        elif isinstance(reply, protocol.Output):
            _log_output(reply)
        elif isinstance(reply, protocol.Notice):
            _log.warning("spawner.notice", text=reply.text)
        elif isinstance(reply, protocol.Froze):
            self._on_frozen()
        elif isinstance(reply, protocol.Pong):
            self._pong.set()
        elif isinstance(reply, protocol.Running):
            self._found(reply, descriptors)
        elif reply.protocol != protocol.PROTOCOL_VERSION:
            raise protocol.ProtocolError(f"the spawner speaks protocol {reply.protocol}")
        else:
            self.pid, self._pongs = reply.pid, reply.pongs
            self._to_come = reply.running
            self._check_up()

    def _check_up(self) -> None:
        if self._to_come == 0:
            self._up.set()

    def _found(self, reply: protocol.Running, descriptors: list[int]) -> None:
        """A worker of an earlier supervisor. Without its descriptors nobody can talk to it: it is ended."""
        self._to_come -= 1
        if (process := self._process(reply, descriptors)) is None:
            self._request(protocol.Kill(reply.worker_id))
        else:
            process.label = reply.label
            self.processes[reply.worker_id] = process
            self.running.append(process)
        self._check_up()

    def _process(self, reply: protocol.Spawned | protocol.Running, descriptors: list[int]) -> SpawnedProcess | None:
        if len(descriptors) != protocol.FDS_OF_SPAWNED:  # this process is out of descriptors: the kernel dropped some
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        worker_socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptors[0])
        worker_socket.setblocking(False)
        return SpawnedProcess(reply.worker_id, reply.pid, reply.started_at, worker_socket, descriptors[1])

    def _spawned(self, reply: protocol.Spawned, descriptors: list[int]) -> None:
        pending = self._pending.pop(reply.worker_id, None)
        process = self._process(reply, descriptors)
        if process is None or pending is None:  # or nobody waits any more
            self._request(protocol.Kill(reply.worker_id))
            if process is not None:
                process.close()
            if pending is not None:
                pending.error = SpawnFailed("The supervisor is out of file descriptors.")
                pending.done.set()
            return
        process.label = pending.label
        self.processes[reply.worker_id] = process
        pending.process = process
        pending.done.set()


def _is_alive(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found += [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data) - len(data) % 4, 4)]
    return found


def _log_output(output: protocol.Output) -> None:
    if output.dropped_bytes:
        _log.warning("worker.output_dropped", worker_id=output.worker_id, bytes=output.dropped_bytes)
    for line in output.text.splitlines():
        _log.info("worker.output", worker_id=output.worker_id, line=line)
