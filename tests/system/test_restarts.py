"""The runtime's own parts die under load, again and again: clients notice pauses, and codes that say what happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.system.audit import broken_promises
from tests.system.conftest import Start
from tests.system.load import Load
from tests.system.lobu_process import ECHO, LobuRun, free_port, until

pytestmark = pytest.mark.timeout(300)  # a load may take 180 s, and says what it lacked

CONFIG = f"""
[limits]
crash_loop_crashes = 1000
drain_grace_seconds = 0.05
{ECHO}"""
TURNS = 200
TIMES = 3


@pytest.mark.slow
async def test_the_main_process_is_killed_again_and_again(start_run: Start) -> None:
    run = await start_run(config=CONFIG, arguments=("--port", str(free_port())))

    async def kill() -> None:
        await run.kill_main()
        await run.start()

    load = await _under_load(run, kill)
    assert set(load.counts()) <= {"complete", "MY_CODE", "HOST_LOST"}, load.counts()
    assert load.retried_posts > 0, "no client met a closed door: the kills were no trouble"
    assert await run.stop() == 0
    assert run.processes() == []


async def test_the_run_is_stopped_and_started_again_and_again(start_run: Start) -> None:
    run = await start_run(config=CONFIG, arguments=("--port", str(free_port())))

    async def roll() -> None:
        assert await run.stop() == 0
        assert run.processes() == []
        await run.start()

    load = await _under_load(run, roll)
    assert set(load.counts()) == {"complete", "MY_CODE"}, "an ordered restart is nobody's failure"


async def test_the_spawner_is_killed_again_and_again(start_run: Start) -> None:
    run = await start_run(config=CONFIG)

    async def kill() -> None:
        spawner, workers = run.spawner_pid(), run.worker_pids()
        assert spawner is not None
        os.kill(spawner, signal.SIGKILL)
        await until(lambda: run.spawner_pid() not in (None, spawner), "another spawner runs")
        await until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), "its workers are gone")

    load = await _under_load(run, kill)
    assert set(load.counts()) <= {"complete", "MY_CODE", "WORKER_CRASHED", "WORKER_STARTUP_FAILED"}, load.counts()
    assert load.counts()["complete"] > TURNS // 2
    assert await run.stop() == 0
    assert run.processes() == []


async def _under_load(run: LobuRun, trouble: Callable[[], Awaitable[None]]) -> Load:
    """Every promise is kept while `trouble` happens several times, spread over the load."""
    load = Load(run, turns=TURNS, conversations=20, clients=8)
    done = 0

    async def make_trouble() -> None:
        nonlocal done
        for number in range(TIMES):
            await until(lambda: len(load.terminals()) > TURNS * number // (TIMES + 1), "turns end", 60)  # noqa: B023
            await trouble()
            done += 1

    with trio.fail_after(180):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_trouble)
            await load.go()
    assert done == TIMES
    assert load.faults() == []
    assert load.missing() == set()
    assert load.strange() == set()
    assert broken_promises(run.database_url, accepted=load.accepted) == []
    return load
