"""A host that cannot renew its lease freezes its workers before another could take over; nothing fails of that."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from tests.system.audit import broken_promises, log_of, turn_of
from tests.system.cluster import standing_still
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun, until
from tests.system.sse_client import Conversation, Transcript

AGENT = f"""
[limits]
host_ttl_seconds = 3
host_renew_seconds = 0.5
host_margin_seconds = 1
{ECHO}deadlines = {{ heartbeat_seconds = 6, turn_seconds = 12 }}
"""
# Three seconds, of which the workers of a host that is not trusted have two: a quarter of what a turn may take, since
# the machine may be slower. With an outage it is more than that.
LONG, LONG_TEXT = "stream 100 30", "".join(f"word{number} " for number in range(100))
SEVERAL = {"LOBU_ALLOW_MULTI_HOST": "1"}
TRUSTING = AGENT.replace("host_ttl_seconds = 3", "host_ttl_seconds = 20")
# Frozen as early, but another host may come only when its lease of 8 s is over: the machine may take the time between.
EARLY_SECONDS = 7.0
EARLY = AGENT.replace("ttl_seconds = 3", "ttl_seconds = 8").replace("margin_seconds = 1", "margin_seconds = 6")


@pytest.mark.parametrize(("config", "away_seconds"), [(TRUSTING, 1), (AGENT, 10)], ids=["trusted", "not trusted"])
async def test_an_outage_of_the_database_pauses_turns_and_fails_none(
    start_run: Start, config: str, away_seconds: float
) -> None:
    """Longer than the worker's heartbeat deadline and, with the turn, than the whole turn's."""
    run = await start_run(config=config, database_url=None, environment=SEVERAL)
    conversation, transcript = await client_of(run).open(), Transcript()
    message_id = await conversation.send(LONG)
    worker = await _speaks(run, conversation, message_id)
    with standing_still(run.postmaster_pid()):
        await trio.sleep(away_seconds)
        assert (_state(worker) == "T") is (config is AGENT), "frozen once its host is not trusted"
    with trio.fail_after(60):
        await transcript.follow(conversation, lambda: message_id in transcript.terminals)
    assert transcript.faults == []
    assert transcript.terminals[message_id].event == "complete"
    assert transcript.texts[message_id] == LONG_TEXT
    assert turn_of(run.database_url, message_id) == ("completed", 1, 0)
    assert [kind for _, kind, _ in log_of(run.database_url, conversation.key)] == ["complete"]
    assert broken_promises(run.database_url) == []
    assert await run.stop() == 0
    assert run.processes() == []


async def test_the_workers_of_a_paused_supervisor_freeze_and_go_on_with_it(start_run: Start) -> None:
    run = await start_run(config=AGENT, environment=SEVERAL)
    conversation = await client_of(run).open()
    message_id = await conversation.send(LONG)
    worker = await _speaks(run, conversation, message_id)
    run.signal(signal.SIGSTOP)
    await until(lambda: _state(worker) == "T", "it is frozen by the spawner")
    await trio.sleep(3)  # its lease is over
    run.signal(signal.SIGCONT)
    assert (await conversation.terminal_of(message_id)).data["finalText"] == LONG_TEXT
    assert turn_of(run.database_url, message_id) == ("completed", 1, 0), "nobody else was there to take it over"
    assert broken_promises(run.database_url) == []


async def test_workers_freeze_in_time_though_their_spawner_stands_still(start_run: Start) -> None:
    """It is replaced after 8 s; until then another host might run what they do."""
    run = await start_run(config=EARLY, database_url=None, environment=SEVERAL)
    conversation = await client_of(run).open()
    message_id = await conversation.send(LONG)
    worker, spawner = await _speaks(run, conversation, message_id), run.spawner_pid()
    assert spawner is not None
    with standing_still(run.postmaster_pid()):
        os.kill(spawner, signal.SIGSTOP)
        await until(lambda: _state(worker) == "T", "it is frozen", EARLY_SECONDS)
        os.kill(spawner, signal.SIGCONT)
    assert (await conversation.terminal_of(message_id)).data["finalText"] == LONG_TEXT
    assert turn_of(run.database_url, message_id) == ("completed", 1, 0)
    assert broken_promises(run.database_url) == []


@pytest.mark.slow
async def test_another_host_takes_over_and_nothing_runs_twice(start_run: Start, database_url: str) -> None:
    one = await start_run(config=AGENT, environment=SEVERAL, database_url=database_url)
    other = await start_run(config=AGENT, environment=SEVERAL, database_url=database_url)
    conversation = await client_of(one).open()
    message_id = await conversation.send(LONG)
    worker = await _speaks(one, conversation, message_id)
    one.signal(signal.SIGSTOP)
    await until(other.worker_pids, "the other host runs it")
    assert _state(worker) == "T", "frozen before anybody took over"
    frame = await conversation.through(client_of(other)).terminal_of(message_id)
    one.signal(signal.SIGCONT)
    assert frame.data["finalText"] == LONG_TEXT
    assert turn_of(database_url, message_id)[:2] == ("completed", 2)
    await until(lambda: not Path(f"/proc/{worker}").exists(), "its frozen worker is ended")
    message_id = await conversation.send("hello")
    assert (await conversation.terminal_of(message_id)).event == "complete", "it is a healthy host again"
    assert broken_promises(database_url) == []


@pytest.mark.slow
async def test_alone_nothing_is_frozen(start_run: Start) -> None:
    run = await start_run(config=AGENT, database_url=None)
    conversation = await client_of(run).open()
    message_id = await conversation.send(LONG)
    worker = await _speaks(run, conversation, message_id)
    with standing_still(run.postmaster_pid()):
        await trio.sleep(4)
        assert _state(worker) != "T"
    assert (await conversation.terminal_of(message_id)).data["finalText"] == LONG_TEXT
    assert turn_of(run.database_url, message_id) == ("completed", 1, 0)


async def _speaks(run: LobuRun, conversation: Conversation, message_id: str) -> int:
    """The pid of its worker, once that has said something."""
    transcript = Transcript()
    with trio.fail_after(60):
        await transcript.follow(conversation, lambda: transcript.texts.get(message_id))
    [worker] = run.worker_pids()
    return worker


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
