"""Everything ends at a bad moment: a hanging spawner, cancelled services, many workers at once."""

from __future__ import annotations

import os
import signal
import sys

import psutil
import pytest
import trio

from lobu_actors.conversation.worker_port import Gone
from supervisor.spawner import link as link_module
from supervisor.spawner.connection import SpawnerLost
from supervisor.spawner.link import SpawnerLink
from supervisor.workers.types import WorkerLimits
from tests.integration.workers.conftest import PATIENCE


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("limits", [WorkerLimits()])
async def test_a_hanging_spawner_does_not_save_a_worker(host, wait_for_end):
    client = await host.ready()
    os.kill(host.link.pid, signal.SIGSTOP)
    try:
        client.worker.kill()
        gone = await client.gone()
        assert "did not end" in gone.detail or gone.reason == Gone.EXITED
        await wait_for_end(client.pid)
    finally:
        os.kill(host.link.pid, signal.SIGCONT)
    assert await (await host.ready()).reply("again") == "again"


async def test_how_a_worker_ended_is_told_though_its_spawner_is_late(host, wait_for_end):
    """It is gone, as everybody can see: it has not closed its socket to live on."""
    client = await host.ready()
    os.kill(host.link.pid, signal.SIGSTOP)
    try:
        client.turn("crash 7")
        await wait_for_end(client.pid)
        await trio.sleep(2 * host.limits.exit_report_seconds)  # in real time, as the supervisor waits
    finally:
        os.kill(host.link.pid, signal.SIGCONT)
    gone = await client.gone()
    assert (gone.reason, gone.exit_code, gone.detail) == (Gone.EXITED, 7, "It exited with code 7.")


@pytest.mark.parametrize("limits", [WorkerLimits(killed_seconds=0.2)])
async def test_that_a_worker_ended_is_told_though_its_spawner_never_says_how(host, wait_for_end):
    client = await host.ready()
    os.kill(host.link.pid, signal.SIGSTOP)
    try:
        client.turn("crash 7")
        gone = await client.gone()
        assert (gone.reason, gone.exit_code, gone.detail) == (Gone.EXITED, None, "It ended, and nobody says how.")
    finally:
        os.kill(host.link.pid, signal.SIGCONT)


async def test_cancelling_the_service_still_ends_and_tells(tmp_path, host, wait_for_end):
    workers = type(host.workers)(host.link, host.types, host.workspaces, host.workers._environment_of)
    clients = [host.client(), host.client(), host.client()]
    async with trio.open_nursery() as nursery:
        context = type(host.workers_context)()
        nursery.start_soon(workers.run, context)
        await context.up.wait()
        for client in clients:
            client.worker = workers.start(host.request(), client.send.send)
        await clients[0].ready()
        await clients[1].ready()
        clients[1].turn("hang")
        nursery.cancel_scope.cancel()
    for client in clients:
        gone = await client.gone()
        assert gone.reason in (Gone.EXITED, Gone.NOT_STARTED)
        await client.assert_nothing_more()
    for client in clients[:2]:
        await wait_for_end(client.pid)
    assert workers.snapshot() == ()


async def test_cancelling_the_link_ends_spawner_and_workers(host, wait_for_end, tmp_path):
    link = type(host.link)(tmp_path / "other")
    workers = type(host.workers)(link, host.types, host.workspaces, host.workers._environment_of)
    client = host.client()
    async with trio.open_nursery() as nursery:
        contexts = [type(host.workers_context)(), type(host.workers_context)()]
        nursery.start_soon(workers.run, contexts[0])
        await contexts[0].up.wait()
        async with trio.open_nursery() as link_nursery:
            link_nursery.start_soon(link.run, contexts[1])
            client.worker = workers.start(host.request(), client.send.send)
            await client.ready()
            spawner = link.pid
            link_nursery.cancel_scope.cancel()
        assert (await client.gone()).reason == Gone.SPAWNER_LOST
        nursery.cancel_scope.cancel()
    await wait_for_end(client.pid)
    await wait_for_end(spawner)


ENDS = ("crash", "crash mid 3", "exit0", "garbage", "hang", "kill", "outside", "spawn session", "early")


async def test_a_spawner_whose_supervisor_stops_at_once_is_asked_to_end(host, tmp_path, monkeypatch):
    """It would wait for the next supervisor, and the stop for it."""
    monkeypatch.setattr(link_module, "END_SECONDS", 10 * PATIENCE)
    link, context = SpawnerLink(tmp_path / "other"), type(host.workers_context)()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run, context)
            await context.up.wait()
            nursery.cancel_scope.cancel()


async def test_a_spawner_that_says_nothing_is_ended(host, tmp_path, monkeypatch):
    """Also when it is so early that it is not on record."""
    monkeypatch.setattr(link_module, "UP_SECONDS", 0.5)
    monkeypatch.setattr(link_module, "END_SECONDS", 0.5)
    mark = str(tmp_path / "other")
    hangs = "import socket, sys, time; link = socket.socket(fileno=int(sys.argv[-1])).accept(); time.sleep(1000)"
    link = SpawnerLink(tmp_path / "other", command=(sys.executable, "-c", hangs))
    with trio.fail_after(PATIENCE), pytest.RaisesGroup(SpawnerLost, flatten_subgroups=True):
        await link.run(type(host.workers_context)())
    assert not [process for process in psutil.process_iter() if mark in " ".join(_command_line(process))]


def _command_line(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def test_many_workers_that_end_in_every_way_at_once(host, wait_for_end):
    before = descriptors(os.getpid()), descriptors(host.link.pid)

    async def live(how):
        client = host.start()
        if how == "early":
            client.worker.kill()
        else:
            await client.ready()
            assert await client.reply("hello") == "hello"
        if how in ("crash", "crash mid 3", "exit0", "garbage", "hang"):
            client.turn(how)
        if how == "spawn session":
            grandchild = int(await client.reply(how))
        if how == "outside":
            os.kill(client.pid, signal.SIGKILL)
        elif how in ("kill", "hang", "spawn session"):
            client.worker.kill()
        await client.gone()
        await client.assert_nothing_more()
        if how == "spawn session":
            await wait_for_end(grandchild)

    async with trio.open_nursery() as nursery:
        for number in range(4 * len(ENDS)):
            nursery.start_soon(live, ENDS[number % len(ENDS)])
    await host.start("absent").gone()
    assert host.workers.snapshot() == ()
    # Fewer are fine: what an earlier test left may be collected meanwhile.
    assert descriptors(os.getpid()) <= before[0]
    assert descriptors(host.link.pid) <= before[1]
