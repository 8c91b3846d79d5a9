"""An owner that is alive and does nothing: somebody else goes on with its work, and what it still writes is refused.

Stuck in four ways: by a bug in its own process (`stuck_lobu.py`), the same where not even cancellation ends it, behind
a row that somebody else keeps locked, and with all of its process, which is stopped for longer than its lease lives.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import trio

from lobu_actors.conversation.promises import SLACK_SECONDS
from supervisor.upkeep.sweeper import OVERDUE_SECONDS
from tests.conftest import admin
from tests.system.audit import broken_promises, log_of, turn_of
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun, until
from tests.system.sse_client import TERMINALS, Conversation

STUCK_LOBU = (str(Path(__file__).with_name("stuck_lobu.py")),)
DEADLINE_SECONDS = 2.0
MARGIN_SECONDS = 6.0  # sweeps, one a second; deadlines are written once a second; two shared CPUs
FOUND_OUT_SECONDS = DEADLINE_SECONDS + SLACK_SECONDS + OVERDUE_SECONDS
FENCED_SECONDS = 10.0
LATE_WRITES = 2  # that `stuck_lobu.py` makes when it is woken
NORMAL_SECONDS = 3.0  # a turn that is only given back, its worker's start included
pytestmark = pytest.mark.slow
SEVERAL = {"LOBU_ALLOW_MULTI_HOST": "1"}
SEVERAL = {"LOBU_ALLOW_MULTI_HOST": "1"}
CONFIG = f"""
[limits]
requests_per_second = 0
{ECHO}deadlines = {{ first_output_seconds = {DEADLINE_SECONDS}, progress_seconds = {DEADLINE_SECONDS} }}
failure = {{ host_lost = "fail" }}
[[agents]]
id = "patient"
worker = "echo"
"""


@pytest.mark.parametrize("content", ["finish this", "hang deaf"])
async def test_a_stuck_actor_of_a_living_process_is_ended_and_fenced(start_run: Start, content: str) -> None:
    run = await start_run(config=CONFIG, program=STUCK_LOBU)
    conversation = await client_of(run).open()
    began = time.monotonic()
    message_id = await conversation.send(content)
    await until(lambda: _epoch(run, conversation) == 1, "its actor has it")
    frame = await conversation.terminal_of(message_id, FOUND_OUT_SECONDS + MARGIN_SECONDS)
    assert frame.data["errorCode"] == "HOST_LOST"
    assert time.monotonic() - began > DEADLINE_SECONDS + SLACK_SECONDS, "a healthy actor would have time until then"
    assert _epoch(run, conversation) == 2
    assert (await conversation.ask("and now", NORMAL_SECONDS)).data["finalText"] == "and now"
    if content.startswith("finish"):
        assert await _fenced(run) == 0
        (run.folder / "wake").touch()
        await _until_fenced(run, LATE_WRITES)
    assert _log(run, conversation) == ["agent-error", "complete"]
    assert broken_promises(run.database_url) == []


async def test_an_actor_that_is_stuck_before_it_has_begun_a_run_is_found_out(start_run: Start) -> None:
    run = await start_run(config=CONFIG, program=STUCK_LOBU)
    conversation = await client_of(run).open()
    message_id = await conversation.send("begin this")
    behind = await conversation.send("behind it")
    assert (await conversation.terminal_of(message_id, 60)).data["finalText"] == "begin this"
    assert (await conversation.terminal_of(behind, NORMAL_SECONDS)).data["finalText"] == "behind it"
    assert turn_of(run.database_url, message_id) == ("completed", 1, 0), "no run was lost, so no attempt failed"
    assert _epoch(run, conversation) == 2
    assert broken_promises(run.database_url) == []


async def test_another_host_takes_over_from_an_actor_that_nothing_ends(start_run: Start) -> None:
    stuck = await start_run(config=CONFIG, program=STUCK_LOBU, environment=SEVERAL)
    other = await start_run(config=CONFIG, environment=SEVERAL)
    conversation = await client_of(stuck).open()
    message_id = await conversation.send("unkillable")
    through_other = conversation.through(client_of(other))
    frame = await through_other.terminal_of(message_id, FOUND_OUT_SECONDS + MARGIN_SECONDS)
    assert frame.data["errorCode"] == "HOST_LOST"
    assert _epoch(other, conversation) == 2
    assert (await through_other.ask("and now", NORMAL_SECONDS)).data["finalText"] == "and now"
    (stuck.folder / "wake").touch()
    await _until_fenced(stuck, LATE_WRITES)
    assert _log(other, conversation) == ["agent-error", "complete"]
    assert broken_promises(other.database_url) == []


async def test_a_host_that_stood_still_for_longer_than_its_lease_writes_nothing_more(start_run: Start) -> None:
    stopped, other = [await start_run(config=CONFIG, environment=SEVERAL) for _ in range(2)]
    conversation = await client_of(stopped).open(agentId="patient")
    message_id = await conversation.send("sleep 2")
    await until(lambda: _live_run(stopped, conversation), "its turn runs")
    stopped.signal(signal.SIGSTOP)
    try:
        frame = await conversation.through(client_of(other)).terminal_of(message_id, 30)
    finally:
        stopped.signal(signal.SIGCONT)
    assert frame.event == "complete", "the agent's rule is to try again"
    assert turn_of(other.database_url, message_id) == ("completed", 2, 1)
    assert _epoch(other, conversation) == 2
    await until(lambda: not stopped.worker_pids(), "what was taken over is ended, whether or not it tried to write")
    assert (await client_of(stopped).call("GET", "/health/ready")).status == 200, "it goes on as a host"
    assert _log(other, conversation) == ["restart", "complete"]
    assert broken_promises(other.database_url) == []


async def test_rows_that_somebody_keeps_locked_hold_up_their_own_conversations_only(start_run: Start) -> None:
    """For longer than it takes to find an owner stuck; then each of its turns ends, once."""
    run = await start_run(config=CONFIG)
    client = client_of(run)
    long, free = await client.open(), await client.open()
    held = FOUND_OUT_SECONDS + MARGIN_SECONDS
    message_id = await long.send(f"stream {int(held * 4)} 250")
    await until(lambda: _has_deadline(run, long), "its deadline is written")
    locked = {table: await client.open() for table in ("actor_lease", "turn", "turn_marker", "run")}
    turns = {table: await conversation.send("sleep 1.5") for table, conversation in locked.items()}
    await until(lambda: all(_live_run(run, conversation) for conversation in locked.values()), "all run")
    slowest = 0.0
    async with _locked(run, locked):
        until_then = time.monotonic() + held
        while time.monotonic() < until_then:
            began = time.monotonic()
            assert (await free.ask("hello", 30)).event == "complete"
            slowest = max(slowest, time.monotonic() - began)
        for conversation in locked.values():
            assert _terminals(run, conversation) == []
    assert slowest < NORMAL_SECONDS
    for table, conversation in locked.items():
        await conversation.terminal_of(turns[table], 30)
        last = await conversation.send("and now")
        assert (await conversation.terminal_of(last, 30)).data["finalText"] == "and now"
        assert _terminals(run, conversation) == [turns[table], last], table
    assert (await long.terminal_of(message_id)).event == "complete"
    assert turn_of(run.database_url, message_id) == ("completed", 1, 0), "the locks of others made it nobody's prey"
    assert broken_promises(run.database_url) == []


@asynccontextmanager
async def _locked(run: LobuRun, conversations: dict[str, Conversation]) -> AsyncIterator[None]:
    """One row of each table, in one session that has nothing to do with `lobu run`."""
    with psycopg.connect(run.database_url) as session:
        for table, conversation in conversations.items():
            column = "key" if table == "actor_lease" else "conversation_id"
            session.execute(f"SELECT 1 FROM {table} WHERE {column} = %s FOR UPDATE", (conversation.key,))
        yield
        session.rollback()


def _epoch(run: LobuRun, conversation: Conversation) -> object:
    rows = admin(run.database_url, f"SELECT epoch FROM actor_lease WHERE key = '{conversation.key}'")
    return rows[0][0] if rows else None


def _live_run(run: LobuRun, conversation: Conversation) -> bool:
    query = f"SELECT 1 FROM run WHERE conversation_id = '{conversation.key}' AND status = 'live'"
    return admin(run.database_url, query) != []


def _has_deadline(run: LobuRun, conversation: Conversation) -> bool:
    query = f"SELECT 1 FROM turn_marker WHERE conversation_id = '{conversation.key}' AND deadline_at IS NOT NULL"
    return admin(run.database_url, query) != []


def _log(run: LobuRun, conversation: Conversation) -> list[str]:
    return [kind for _, kind, _ in log_of(run.database_url, conversation.key)]


def _terminals(run: LobuRun, conversation: Conversation) -> list[str | None]:
    """Whose end is told."""
    return [name for _, kind, name in log_of(run.database_url, conversation.key) if kind in TERMINALS]


async def _fenced(run: LobuRun) -> float:
    lines = (await client_of(run).text("/metrics")).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("lobu_fenced_writes_total{"))


async def _until_fenced(run: LobuRun, number: float) -> None:
    found = 0.0
    with trio.move_on_after(FENCED_SECONDS):
        while found < number:
            found = await _fenced(run)
    assert found == number
