"""Remote workers whose link arrives at another process than the one that has the conversation."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import trio

from tests.fakes.proxy import Proxy
from tests.system.audit import broken_promises, turn_of
from tests.system.cluster import hosts, lobu
from tests.system.conftest import client_of
from tests.system.lobu_process import LOBU, LobuRun, free_port, until
from tests.system.remote_world import MORE_GRACE, runner

TEXT = "".join(f"word{number} " for number in range(200))


@asynccontextmanager
async def edge(run: LobuRun, port: int) -> AsyncIterator[trio.Process]:
    """A `lobu edge` of another machine: it reaches the host over its address for links."""
    folder = Path(tempfile.mkdtemp(prefix="lobu-edge-"))
    (folder / "lobu.toml").write_text(MORE_GRACE)
    environment = {**run.environment, "HOME": str(folder)}
    log = (folder / "err.log").open("wb")
    command = [sys.executable, *LOBU, "edge", "--port", str(port)]
    process = await trio.lowlevel.open_process(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        await until(lambda: b"edge is ready" in (folder / "err.log").read_bytes(), "the edge is ready", 60)
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


async def offered(run: LobuRun, *, hosts: int, places: int) -> None:
    """Return when each host knows of that many idle places: they come in one after the other."""
    with trio.fail_after(30):
        while True:
            status = json.loads((await lobu(run, "status", "--json")).stdout)
            if [host["idlePlaces"] for host in status["inside"]] == hosts * [places]:
                return


async def test_a_runner_at_one_host_works_for_the_other_too(database_url: str) -> None:
    async with hosts(2, MORE_GRACE, database_url) as (one, two), runner(one, arguments=("--slots", "4")) as far:
        await offered(one, hosts=2, places=4)
        for run in (one, two, one, two):
            conversation = await client_of(run).open(forceNew=True)
            assert (await conversation.ask("hello")).data["finalText"] == "hello"
            assert (await conversation.ask("history")).data["finalText"] == "2"
        with psycopg.connect(database_url, autocommit=True) as connection:
            rows = connection.execute("SELECT DISTINCT host_id FROM run").fetchall()
        assert len(rows) == 2, "both hosts had turns"
        assert len(far.worker_pids()) == 4
        conversation = await client_of(two).open(forceNew=True)
        await far.kill_all()
        await far.start()
        big = "x" * 700_000  # longer than a frame between two hosts
        assert (await conversation.ask(big)).data["finalText"] == big


async def test_a_place_that_a_conversation_of_the_other_host_has_is_given_up(database_url: str) -> None:
    config = MORE_GRACE.replace("startup_seconds = 60", "startup_seconds = 30")
    async with hosts(2, config, database_url) as (one, two), runner(one, arguments=("--slots", "1")) as far:
        await offered(one, hosts=2, places=1)
        first = await client_of(one).open(forceNew=True)
        second = await client_of(two).open(forceNew=True)
        for number in ("0", "2", "4"):  # messages before it
            for conversation in (first, second):
                end = await conversation.ask("history")
                assert (end.event, end.data.get("finalText")) == ("complete", number), f"{end} {far.log()}"
        with psycopg.connect(database_url, autocommit=True) as connection:
            rows = connection.execute("SELECT DISTINCT host_id FROM run").fetchall()
        assert len(rows) == 2, "each host has one of them"
    assert broken_promises(database_url) == []


@pytest.mark.slow
async def test_an_edge_that_is_restarted_costs_a_turn_nothing(database_url: str, nursery: trio.Nursery) -> None:
    first, second = free_port(), free_port()
    proxy = Proxy(first)
    await nursery.start(proxy.run)
    async with (
        hosts(1, MORE_GRACE, database_url) as (run,),
        edge(run, first) as gone,
        edge(run, second),
        runner(run, url=f"http://127.0.0.1:{proxy.port}"),
    ):
        conversation = await client_of(run).open()
        message_id = await conversation.send("stream 200 20")
        async with conversation.events() as stream:
            await stream.next_of("output")
        proxy.target = second  # what a balancer does
        gone.send_signal(signal.SIGTERM)
        end = await conversation.terminal_of(message_id)
        assert (end.event, end.data.get("finalText")) == ("complete", TEXT), end
        with trio.fail_after(30):
            assert await gone.wait() == 0
        assert turn_of(database_url, message_id)[1] == 1
    assert broken_promises(database_url) == []
