"""I8: after the work is done and the idle time over, a running `lobu run` is as small as it was before."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import trio

from tests.system.conftest import Start, client_of
from tests.system.load import Load
from tests.system.lobu_process import ECHO, LobuRun, until

CONFIG = f"""
[limits]
worker_idle_seconds = 0.3
crash_loop_crashes = 1000
{ECHO}"""
POOL = 8  # database connections, opened when they are needed


async def test_nothing_piles_up(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    await _work_then_idle(run, seed=1)
    before = _descriptors(run)
    threads = psutil.Process(run.pid).num_threads()
    for seed in (2, 3):
        await _work_then_idle(run, seed)
    for name, number in before.items():
        await until(lambda: _descriptors(run)[name] <= number + POOL, f"{name} has {number} descriptors")  # noqa: B023
    # Threads that have nothing to do end after 10 s.
    await until(lambda: psutil.Process(run.pid).num_threads() <= threads + 4, f"no more than {threads} threads and 4")
    await until(lambda: {found.pid for found in run.processes()} == {run.pid, run.spawner_pid()}, "nothing is left")
    await until(lambda: list((run.folder / "tmp").iterdir()) == [], "no temporary folder is left")


async def test_a_client_that_stays_connected_does_not_hold_up_a_stop(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    client = client_of(run, keep=True)
    assert (await client.call("GET", "/health/ready")).status == 200
    assert (await client.call("GET", "/health/live")).status == 200
    assert await run.stop() == 0
    assert "outlived the stop grace" not in run.errors()
    await client.close()


async def _work_then_idle(run: LobuRun, seed: int) -> None:
    load = Load(run, turns=60, conversations=10, clients=8, seed=seed, drop_every_seconds=0.2)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.kill_workers, 0.05)
            await load.go()
            nursery.cancel_scope.cancel()
    assert load.faults() == []
    await until(lambda: run.worker_pids() == [], "idle workers end")
    await until(lambda: _connections(run) == [], "connections are closed")


def _descriptors(run: LobuRun) -> dict[str, int]:
    spawner = run.spawner_pid()
    assert spawner is not None
    return {name: len(os.listdir(Path(f"/proc/{pid}/fd"))) for name, pid in (("main", run.pid), ("spawner", spawner))}


def _connections(run: LobuRun) -> list[object]:
    """Clients' connections that the edge holds; those to the database are unix sockets."""
    port = int(run.url.rsplit(":", 1)[1])
    return [
        found
        for found in psutil.Process(run.pid).net_connections("tcp")
        if found.laddr and found.laddr.port == port and found.status != psutil.CONN_LISTEN
    ]
