"""Workers that say anything: each turn ends once, and the runtime does not notice more than it should.

LOBU_FUZZ_SEED repeats a run or makes another one, LOBU_FUZZ_TURNS makes it longer.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import psycopg
import trio

from tests.system.audit import broken_promises, log_of
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import LobuRun
from tests.system.sse_client import TERMINALS

SEED = os.environ.get("LOBU_FUZZ_SEED", "1")
TURNS = int(os.environ.get("LOBU_FUZZ_TURNS", "120"))
CONVERSATIONS = 6
TURN_SECONDS = 60.0
WORKER = Path(__file__).parent.parent / "workers" / "fuzzing.py"
CONFIG = f"""
[limits]
requests_per_second = 0
crash_loop_crashes = 1000000
cancel_grace_seconds = 0.2
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[workers.fuzzing]
command = ["{sys.executable}", "-S", "{WORKER}", "{SEED}"]
[[agents]]
id = "echo"
worker = "echo"
default = true
[[agents]]
id = "fuzzing"
worker = "fuzzing"
deadlines = {{ startup_seconds = 10, first_output_seconds = 1, progress_seconds = 1, heartbeat_seconds = 1, tool_seconds = 1, turn_seconds = 3, question_seconds = 1 }}
failure = {{ retry_backoff_seconds = 0.05 }}
"""  # noqa: E501


async def test_workers_that_say_anything(start_run: Start) -> None:
    run: LobuRun = await start_run(config=CONFIG)
    pid, spawner = run.pid, run.spawner_pid()
    told: Counter[str] = Counter()
    keys: list[str] = []

    async def talk(number: int) -> None:
        conversation = await client_of(run).open(agentId="fuzzing")
        keys.append(conversation.key)
        for turn in range(TURNS // CONVERSATIONS):
            frame = await conversation.ask(f"{number}.{turn}", TURN_SECONDS)  # checks offsets, ids and their order
            told[frame.data.get("errorCode", frame.event)] += 1

    async with trio.open_nursery() as nursery:
        for number in range(CONVERSATIONS):
            nursery.start_soon(talk, number)

    assert (run.pid, run.spawner_pid()) == (pid, spawner)
    assert "Traceback" not in run.errors(), run.log()
    assert broken_promises(run.database_url) == []
    for key in keys:
        ends = [kind for _, kind, _ in log_of(run.database_url, key) if kind in TERMINALS]
        assert len(ends) == TURNS // CONVERSATIONS, f"seed {SEED}, {key}: {ends}"
    assert _accepted(run) == told.total()
    assert len({"complete", "WORKER_PROTOCOL_ERROR", "WORKER_CRASHED"} & set(told)) == 3, (
        f"it does not reach far: {told}"
    )
    assert "INTERNAL_ERROR" not in told, told
    frame = await (await client_of(run).open()).ask("still here")
    assert frame.data["finalText"] == "still here"
    assert await run.stop() == 0
    assert run.processes() == []


def _accepted(run: LobuRun) -> int:
    with psycopg.connect(run.database_url) as connection:
        row = connection.execute("SELECT count(*) FROM turn").fetchone()
    assert row is not None
    return int(row[0])
