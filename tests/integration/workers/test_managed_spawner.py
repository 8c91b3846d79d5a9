"""A spawner that a service manager runs: the supervisor connects to it, and neither starts nor ends it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from supervisor.spawner.connection import SpawnerLost
from supervisor.spawner.link import SOCKET_NAME, SpawnerLink
from supervisor.spawner.program import RECORDS_NAME
from supervisor.spawner.protocol import Spawn
from tests.integration.workers.lives import PATIENCE, Context

PROGRAM = (sys.executable, "-m", "supervisor.spawner")


class Manager:
    """As a socket unit: it holds the socket, and starts the spawner on it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(folder / SOCKET_NAME))
        self.listener.listen(8)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.settimeout(PATIENCE)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        descriptor = self.listener.fileno()
        return subprocess.Popen(
            [*PROGRAM, "--folder", str(self.folder / RECORDS_NAME), "--listen-fd", str(descriptor)],
            pass_fds=(descriptor,),
            env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), "WATCHDOG_USEC": "200000"},
        )

    def said(self) -> bytes:
        return self.notify.recv(4096)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.listener.close()
        self.notify.close()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    made = Manager(tmp_path / "spawner")
    yield made
    made.end()


def sleeper(worker_id: str) -> Spawn:
    return Spawn(worker_id, ["sleep", "1000"], {"PATH": os.environ["PATH"]}, "/")


async def test_an_ordered_stop_leaves_the_spawner_and_its_socket(manager: Manager) -> None:
    for worker_id in ("w1", "w2"):
        link, context = SpawnerLink(manager.folder, managed=True), Context()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run, context)
            with trio.fail_after(PATIENCE):
                await context.up.wait()
                assert link.pid == manager.process.pid
                for ended in link.take_running():  # killed a moment ago, and not yet reaped
                    ended.close()
                worker = await link.spawn(sleeper(worker_id))
                context.stopping.set()
        worker.close()
    assert manager.process.poll() is None
    assert (manager.folder / SOCKET_NAME).exists()


async def test_a_supervisor_that_dies_leaves_the_workers_to_the_next(manager: Manager) -> None:
    with SpawnerLink(manager.folder, managed=True)._connect() or pytest.fail("nobody listens"):
        pass  # it died before its first words
    first, context = SpawnerLink(manager.folder, managed=True), Context()
    replaced = trio.Event()

    async def run_until_replaced() -> None:
        with pytest.raises(SpawnerLost):
            await first.run(context)
        replaced.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_until_replaced)
        with trio.fail_after(PATIENCE):
            await context.up.wait()
            worker = await first.spawn(sleeper("w1"))
            second, after = SpawnerLink(manager.folder, managed=True), Context()
            nursery.start_soon(second.run, after)  # the spawner serves who came last
            await after.up.wait()
            found = second.take_running()
            await replaced.wait()
        assert [(one.worker_id, one.pid) for one in found] == [("w1", worker.pid)]
        for one in (worker, *found):
            one.close()
        nursery.cancel_scope.cancel()


async def test_a_new_spawner_is_found_behind_the_same_socket(manager: Manager) -> None:
    link, context = SpawnerLink(manager.folder, managed=True), Context()
    manager.process.kill()
    manager.process.wait(PATIENCE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, context)
        manager.process = manager.start()
        with trio.fail_after(PATIENCE):
            await context.up.wait()
            worker = await link.spawn(sleeper("w1"))
            assert link.pid == manager.process.pid
        context.stopping.set()
    worker.close()


async def test_without_a_socket_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(SpawnerLost, match="socket unit"):
        await SpawnerLink(tmp_path, managed=True).run(Context())
    assert os.listdir(tmp_path) == []


async def test_it_says_that_it_is_ready_and_then_that_it_lives(manager: Manager) -> None:
    first = await trio.to_thread.run_sync(manager.said)
    assert first.startswith(b"READY=1\n")
    assert await trio.to_thread.run_sync(manager.said) == b"WATCHDOG=1"
    assert await trio.to_thread.run_sync(manager.said) == b"WATCHDOG=1"
