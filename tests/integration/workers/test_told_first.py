"""Somebody waits to hear of a worker's end; what it leaves behind is cleared when they know."""

from __future__ import annotations

import os
import signal

import trio
import trio.testing

from lobu_actors.conversation.worker_port import WorkerGone, WorkerSignal
from supervisor.spawner import protocol
from supervisor.spawner.connection import Connection, Exit, SpawnedProcess
from supervisor.workers.service import WorkerProcesses
from tests.integration.workers.conftest import PATIENCE

DEATHS = 8  # who runs next is a coin's toss, and must not be


class Rounds(trio.abc.Instrument):
    """How often the event loop has looked for what is ready."""

    number = 0

    def before_io_wait(self, timeout: float) -> None:
        self.number += 1


async def test_every_report_is_ahead_of_what_is_left_of_a_log(host, script, monkeypatch):
    name = script(
        "talker",
        """
import subprocess
sys.stdout.write("the rest of a line")
sys.stdout.flush()
subprocess.Popen(["sleep", "1000"], start_new_session=True)  # which holds the log open
say("ready", protocol=1, name="talker", version="1", capabilities=[])
hear()
""",
    )
    heard: list[type[object]] = []
    all_heard = trio.Event()
    take = Connection._take

    def note(self: Connection, reply: protocol.Reply, descriptors: list[int]) -> None:
        heard.append(type(reply))
        if heard.count(protocol.Output) == 3:
            all_heard.set()
        take(self, reply, descriptors)

    clients = [await host.ready(name) for _ in range(3)]
    monkeypatch.setattr(Connection, "_take", note)
    os.kill(host.link.pid, signal.SIGSTOP)
    for client in clients:
        os.kill(client.pid, signal.SIGKILL)
    for client in clients:  # each is a zombie by now: the spawner finds all of them when it goes on
        pidfd = os.pidfd_open(client.pid)
        await trio.lowlevel.wait_readable(pidfd)
        os.close(pidfd)
    os.kill(host.link.pid, signal.SIGCONT)
    for client in clients:
        await client.gone()
    with trio.fail_after(PATIENCE):
        await all_heard.wait()
    ends = [kind for kind in heard if kind in (protocol.Exited, protocol.Output)]
    assert ends == [protocol.Exited] * 3 + [protocol.Output] * 3


async def test_the_last_signal_comes_with_the_report(host, monkeypatch):
    """In the very next step of the worker's task, whatever is still to be ended of it."""
    rounds = Rounds()
    reported: dict[str, int] = {}
    told: dict[str, int] = {}
    end = SpawnedProcess.end

    def note(self: SpawnedProcess, how: Exit) -> None:
        reported[self.worker_id] = rounds.number
        end(self, how)

    async def deliver(said: WorkerSignal) -> None:
        if isinstance(said, WorkerGone):
            told[said.worker_id] = rounds.number
        await client.send.send(said)

    monkeypatch.setattr(SpawnedProcess, "end", note)
    trio.lowlevel.add_instrument(rounds)
    try:
        for _ in range(DEATHS):
            client = host.client()
            client.worker = host.workers.start(host.request(), deliver)
            await client.ready()
            os.kill(client.pid, signal.SIGKILL)
            await client.gone()
    finally:
        trio.lowlevel.remove_instrument(rounds)
    assert len(told) == DEATHS
    assert [told[worker_id] - at for worker_id, at in reported.items() if told[worker_id] - at > 1] == []


async def test_who_is_told_goes_on_before_anything_is_cleared(host, monkeypatch):
    happened: list[str] = []
    release = WorkerProcesses._release

    def note(self: WorkerProcesses, worker_id: str) -> None:
        happened.append("cleared")
        release(self, worker_id)

    monkeypatch.setattr(WorkerProcesses, "_release", note)

    async def deliver(said: WorkerSignal) -> None:
        client.send.send_nowait(said)  # as a mailbox takes it: at once

    for _ in range(DEATHS):
        client = host.client()
        client.worker = host.workers.start(host.request(), deliver)
        await client.ready()
        happened.clear()
        os.kill(client.pid, signal.SIGKILL)
        await client.gone()
        happened.append("told")
        await trio.testing.wait_all_tasks_blocked()
        assert happened == ["told", "cleared"]


async def test_a_socket_stays_open_while_a_task_waits_on_it(host, script):
    """A process that the worker left holds the other end, full as it is. Its number must not be another socket's before
    the task that waits for room there is gone, which is behind the last signal."""
    name = script(
        "deaf",
        """
import signal
if os.fork() == 0:
    os.setsid()
else:
    say("ready", protocol=1, name="deaf", version="1", capabilities=[])
signal.pause()
""",
    )
    before = len(os.listdir("/proc/self/fd"))
    found: list[tuple[bool, bool]] = []

    async def deliver(said: WorkerSignal) -> None:
        if isinstance(said, WorkerGone):
            assert client.worker._process is not None
            found.append((client.worker._flushing, client.worker._process.socket.fileno() >= 0))
        await client.send.send(said)

    client = host.client()
    client.worker = host.workers.start(host.request(name), deliver)
    await client.ready()
    client.turn("x" * 4_000_000)
    await trio.testing.wait_all_tasks_blocked()
    os.kill(client.pid, signal.SIGKILL)
    assert (await client.gone()).signal == signal.SIGKILL
    await client.assert_nothing_more()
    assert found == [(True, True)]
    assert host.workers.snapshot() == ()
    assert len(os.listdir("/proc/self/fd")) <= before
