"""Every way in which a worker can go: what the client is told, at once, and what the next message finds."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import trio

from lobu_actors.store.embedded import EmbeddedServer
from tests.conftest import admin, url_of
from tests.system.audit import broken_promises, log_of, turn_of
from tests.system.conftest import client_of, shared_run
from tests.system.lobu_process import LobuRun, until
from tests.system.sse_client import Conversation, Transcript

RAW = Path(__file__).parent.parent / "workers" / "raw.py"
AT_ONCE_SECONDS = 8.0  # a worker's start and end on a busy machine; what is late is late by the heartbeat's 15 s
STARTS_BADLY = ("exits_at_once", "exits_after_hello", "closes_at_start", "other_protocol", "never_ready")
SPEAKS_BADLY = ("garbage_at_start", "speaks_too_early")
STARTS_WELL = ("own_fields", "several_terminals", "old_runs", "exits_when_ready")
HABITS = (*STARTS_WELL, *STARTS_BADLY, *SPEAKS_BADLY)


def _config(folder: Path) -> str:
    workers = "".join(f'[workers.{habit}]\ncommand = ["{sys.executable}", "{RAW}", "{habit}"]\n' for habit in HABITS)
    agents = "".join(
        f'[[agents]]\nid = "{habit}"\nworker = "{habit}"\n'
        f"deadlines = {{ startup_seconds = {60 if habit in STARTS_WELL else 2} }}\n"
        for habit in HABITS
    )
    return f"""
[limits]
crash_loop_crashes = 1000
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[workers.vanishing]
command = ["{folder}/vanishing"]
{workers}
[[agents]]
id = "echo"
worker = "echo"
default = true
[[agents]]
id = "vanishing"
worker = "vanishing"
{agents}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A worker program that is there when `lobu run` starts."""
    path = tmp_path_factory.mktemp("programs") / "vanishing"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lobu_actors.agents.echo\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def run(database_server: EmbeddedServer, template_database: str, program: Path) -> Iterator[LobuRun]:
    admin(database_server.url, f"CREATE DATABASE lobu_workers TEMPLATE {template_database} STRATEGY file_copy")
    with shared_run(_config(program.parent), url_of(database_server, "lobu_workers")) as shared:
        yield shared
    admin(database_server.url, "DROP DATABASE lobu_workers WITH (FORCE)")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("crash 3", "WORKER_CRASHED"),
        ("crash mid 3", "WORKER_CRASHED"),
        ("exit0", "WORKER_CRASHED"),
        ("close", "WORKER_CRASHED"),
        ("garbage", "WORKER_PROTOCOL_ERROR"),
        ("fail MY_CODE why", "MY_CODE"),
    ],
)
async def test_the_client_hears_at_once_and_the_next_message_finds_a_worker(
    run: LobuRun, content: str, code: str
) -> None:
    conversation = await client_of(run).open()
    frame = await conversation.ask(content, AT_ONCE_SECONDS)
    assert (frame.event, frame.data["errorCode"]) == ("agent-error", code)
    assert (await conversation.ask("again", AT_ONCE_SECONDS)).data["finalText"] == "again"


async def test_workers_that_end_as_soon_as_they_are_ready_are_not_started_for_ever(run: LobuRun) -> None:
    """Too slowly for a crash loop. Sometimes one gets its turn just before its end is known."""
    conversation = await client_of(run).open(agentId="exits_when_ready")
    frame = await conversation.ask("hello", AT_ONCE_SECONDS)
    assert (frame.event, frame.data["errorCode"]) == ("agent-error", "WORKER_CRASHED")


async def test_a_worker_that_reports_a_timeout_is_tried_once_more(run: LobuRun) -> None:
    conversation = await client_of(run).open()
    message_id = await conversation.send("crash 124")
    frame = await conversation.terminal_of(message_id, AT_ONCE_SECONDS)
    assert frame.data["errorCode"] == "SESSION_TIMEOUT"
    assert turn_of(run.database_url, message_id)[:2] == ("timeout", 2)
    assert [kind for _, kind, _ in log_of(run.database_url, conversation.key)] == ["restart", "agent-error"]


async def test_a_killed_worker(run: LobuRun) -> None:
    conversation, transcript, message_id, pid = await _running(run, "stream 100000 5")
    os.kill(pid, signal.SIGKILL)
    with trio.fail_after(AT_ONCE_SECONDS):
        await transcript.follow(conversation, lambda: message_id in transcript.terminals)
    assert transcript.terminals[message_id].data["errorCode"] == "WORKER_CRASHED"
    assert transcript.terminals[message_id].data["errorContext"]["exit"] == "signal 9"
    assert (await conversation.ask("again", AT_ONCE_SECONDS)).event == "complete"


async def test_an_idle_worker_that_is_killed_is_replaced_unnoticed(run: LobuRun) -> None:
    conversation = await client_of(run).open()
    for number in range(1, 4):
        os.kill(await _pid_after(run, conversation), signal.SIGKILL)
        await until(lambda: _ends_told(run, conversation) == number, "its end is known", AT_ONCE_SECONDS)  # noqa: B023
        assert (await conversation.ask("next", AT_ONCE_SECONDS)).event == "complete"


@pytest.mark.parametrize("agent", STARTS_BADLY)
async def test_a_worker_that_does_not_come_up(run: LobuRun, agent: str) -> None:
    conversation = await client_of(run).open(agentId=agent)
    frame = await conversation.ask("hello", AT_ONCE_SECONDS)
    assert (frame.event, frame.data["errorCode"]) == ("agent-error", "WORKER_STARTUP_FAILED")
    again = await conversation.ask("hello", AT_ONCE_SECONDS)
    assert again.data["errorCode"] == "WORKER_STARTUP_FAILED"


@pytest.mark.parametrize("agent", SPEAKS_BADLY)
async def test_a_worker_that_breaks_the_protocol_before_it_is_ready(run: LobuRun, agent: str) -> None:
    conversation = await client_of(run).open(agentId=agent)
    frame = await conversation.ask("hello", AT_ONCE_SECONDS)
    assert frame.data["errorCode"] in ("WORKER_STARTUP_FAILED", "WORKER_PROTOCOL_ERROR")


async def test_a_program_that_vanished_or_is_not_executable_any_more(run: LobuRun, program: Path) -> None:
    client, aside = client_of(run), program.with_name("aside")
    steps: list[tuple[Callable[[], None], str | None]] = [
        (lambda: program.chmod(stat.S_IRUSR), "WORKER_STARTUP_FAILED"),
        (lambda: os.rename(program, aside), "WORKER_STARTUP_FAILED"),
        (lambda: os.rename(aside, program), "WORKER_STARTUP_FAILED"),
        (lambda: program.chmod(0o755), None),
    ]
    for change, code in steps:
        change()
        frame = await (await client.open(agentId="vanishing")).ask("hello", AT_ONCE_SECONDS)
        assert frame.data.get("errorCode") == code


@pytest.mark.parametrize("place", ["", "group", "session"])
async def test_what_a_killed_worker_had_started_is_gone_too(run: LobuRun, place: str) -> None:
    conversation = await client_of(run).open()
    grandchild = int((await conversation.ask(f"spawn {place}".strip())).data["finalText"])
    assert psutil.pid_exists(grandchild)
    os.kill(_worker_of(run, conversation), signal.SIGKILL)
    await until(lambda: not psutil.pid_exists(grandchild), "the grandchild is gone", AT_ONCE_SECONDS)


async def test_only_the_first_of_several_terminal_frames_counts(run: LobuRun) -> None:
    conversation = await client_of(run).open(agentId="several_terminals")
    before = await _dropped(run)
    for number in range(1, 6):
        frame = await conversation.ask("go")
        assert (frame.event, frame.data["finalText"]) == ("complete", "once")
        await _until_dropped(run, before + 5 * number)
    assert [kind for _, kind, _ in log_of(run.database_url, conversation.key)] == ["complete"] * 5
    assert broken_promises(run.database_url, quiet=False) == []


@pytest.mark.parametrize(("answer", "end"), [("go on", "complete"), ("fail", "agent-error")])
async def test_what_a_worker_sends_beside_the_protocol_reaches_its_clients(run: LobuRun, answer: str, end: str) -> None:
    conversation = await client_of(run).open(agentId="own_fields")
    seen = {}
    with trio.fail_after(60):
        async with conversation.events() as events:
            assert await events.next_of("connected")
            message_id = await conversation.send("go")
            for name in ("status", "ephemeral", "question"):
                seen[name] = (await events.next_of(name)).data
            path = f"{conversation.path}/questions/{seen['question']['questionId']}/answer"
            assert (await conversation.client.call("POST", path, {"answer": answer})).status == 200
            seen[end] = (await events.next_of(end)).data
    for data in seen.values():
        assert data["detail"] == {"page": 7}
        assert data["messageId"] == message_id
        assert data.get("timestamp") != 1
        assert "files" not in data


async def test_frames_of_another_run_are_dropped(run: LobuRun) -> None:
    conversation = await client_of(run).open(agentId="old_runs")
    before = await _dropped(run)
    for number in range(1, 6):
        frame = await conversation.ask("go")
        assert (frame.event, frame.data["finalText"]) == ("complete", "fresh")
        await _until_dropped(run, before + 4 * number)
    assert [kind for _, kind, _ in log_of(run.database_url, conversation.key)] == ["complete"] * 5


async def _running(run: LobuRun, content: str) -> tuple[Conversation, Transcript, str, int]:
    """A turn that has begun to speak, and its worker's pid."""
    conversation, transcript = await client_of(run).open(), Transcript()
    message_id = await conversation.send(content)
    with trio.fail_after(AT_ONCE_SECONDS):
        await transcript.follow(conversation, lambda: transcript.texts.get(message_id))
    return conversation, transcript, message_id, _worker_of(run, conversation)


async def _pid_after(run: LobuRun, conversation: Conversation) -> int:
    assert (await conversation.ask("here", AT_ONCE_SECONDS)).event == "complete"
    return _worker_of(run, conversation)


def _ends_told(run: LobuRun, conversation: Conversation) -> int:
    return sum("worker gone" in line and conversation.key in line for line in run.errors().splitlines())


def _worker_of(run: LobuRun, conversation: Conversation) -> int:
    """The pid of the newest run's worker, as the database has it."""
    row = admin(
        run.database_url,
        f"SELECT worker_pid FROM run WHERE conversation_id = '{conversation.key}' ORDER BY run_id DESC LIMIT 1",
    )[0]
    assert isinstance(row[0], int)
    return row[0]


async def _dropped(run: LobuRun) -> float:
    lines = (await client_of(run).text("/metrics")).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("lobu_dropped_frames_total{"))


async def _until_dropped(run: LobuRun, number: float) -> None:
    found = 0.0
    with trio.move_on_after(AT_ONCE_SECONDS):
        while found < number:
            found = await _dropped(run)
    assert found == number
