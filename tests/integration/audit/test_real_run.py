"""`lobu audit` beside a real `lobu run` whose workers die: nothing is broken while it works, and nothing afterwards."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import trio

from tests.system.load import Load
from tests.system.lobu_process import ECHO, LobuRun, lobu_run, until

CONFIG = f"""
[limits]
crash_loop_crashes = 1000
snapshot_max_segments = 2
retention_interval_seconds = 0.2
{ECHO}"""
SECONDS = 120


async def audit(run: LobuRun, url: str) -> dict[str, Any]:
    words = ["audit", "--json", "--database-url", url, "--data-dir", str(run.folder)]
    done = await trio.run_process(
        [sys.executable, "-m", "supervisor.cli.main", *words],
        capture_stdout=True,
        check=False,
        cwd=run.folder,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    return report


def broken(report: dict[str, Any]) -> list[Any]:
    return [row for line in report["invariants"] for row in line["broken"]]


async def test_before_and_after_the_end(database_url: str) -> None:
    async with lobu_run(config=CONFIG, database_url=database_url) as run:
        load = Load(run, turns=150, conversations=10, clients=8)
        reports: list[dict[str, Any]] = []
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.kill_workers, 0.1)
                async with trio.open_nursery() as working:
                    working.start_soon(load.go)
                    for _ in range(2):
                        reports.append(await audit(run, database_url))
                nursery.cancel_scope.cancel()
            reports.append(await audit(run, database_url))
            assert await run.stop() == 0
            reports.append(await audit(run, database_url))
        assert [broken(report) for report in reports] == [[], [], [], []]
        checked = {line["invariant"]: line["checked"] for line in reports[-1]["invariants"]}
        assert checked["I1"]["turn"] == 150
        assert checked["I8"].get("process", 0) == 0


async def test_a_worker_that_outlived_its_run_is_found(database_url: str) -> None:
    """Everything of a run is killed but for one worker: the audit names it."""
    async with lobu_run(config=CONFIG, database_url=database_url) as run:
        load = Load(run, turns=5, conversations=2, clients=2)
        with trio.fail_after(SECONDS):
            await load.go()
            await until(lambda: run.worker_pids() != [], "a warm worker is there")
            worker, *_ = run.worker_pids()
            spawner = run.spawner_pid()
            assert spawner is not None
            os.kill(worker, signal.SIGSTOP)  # it would see that its socket closed, and end
            os.kill(run.pid, signal.SIGSTOP)  # it would see that its spawner ended, and end the workers
            os.kill(spawner, signal.SIGKILL)
            await run.kill_main()
            report = await audit(run, database_url)
        found = [row for row in broken(report) if row["check"] == "orphan"]
        assert worker in [row["pid"] for row in found]
