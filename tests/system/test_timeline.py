"""A turn's timeline, seen from outside: over HTTP, and as the command line prints it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun, until
from tests.system.sse_client import Conversation
from tests.system.tool_worker import found

CONFIG = f"""
[workers.tools]
command = ["python", "-m", "tests.system.tool_worker"]
[[agents]]
id = "tools"
worker = "tools"
[[agents]]
id = "again"
worker = "echo"
failure = {{ crash = "retry", max_attempts = 2 }}
{ECHO}"""
TOOL_SECONDS = 0.05
ROUNDED_MS = 1.0
ROOT = {"WORKER_ENV_PYTHONPATH": str(Path(__file__).parents[2])}


async def timeline_of(conversation: Conversation, name: str) -> list[dict[str, Any]]:
    answer = await conversation.client.call("GET", f"{conversation.path}/turns/{name}/timeline")
    assert answer.status == 200, answer
    assert answer.body["success"] is True
    entries: list[dict[str, Any]] = answer.body["entries"]
    since = [entry["sinceStartMs"] for entry in entries]
    assert since == sorted(since), entries
    assert since[0] == 0
    assert all(abs(entry["at"] - entries[0]["at"] - entry["sinceStartMs"]) <= 1 for entry in entries)
    return entries


def names(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["name"] for entry in entries]


def history(run: LobuRun, key: str, *options: str) -> str:
    words = [sys.executable, "-m", "supervisor.cli.main", "history", key, "--timeline", *options]
    return subprocess.run(words, cwd=run.folder, env=run.environment, check=True, capture_output=True, text=True).stdout


async def test_tools_questions_and_delivery(start_run: Start) -> None:
    run = await start_run(config=CONFIG, environment=ROOT)
    conversation = await client_of(run).open(agentId="tools")
    async with conversation.events() as stream:
        receipt = (await conversation.post("a secret wish, until found", "m1")).body
        with trio.fail_after(30):
            await stream.next_of("status")
            await trio.sleep(TOOL_SECONDS)  # from when it is known to have begun
            found(run.folder)
            question = (await stream.next_of("question")).data["questionId"]
            going = json.loads(await trio.to_thread.run_sync(history, run, conversation.key, "--json"))["turns"]
            assert [names(turn["entries"]) for turn in going] == [["accepted", "started", "question"]]
            path = f"{conversation.path}/questions/{question}/answer"
            assert (await conversation.client.call("POST", path, {"answer": "a secret answer"})).status == 200
            await stream.next_of("complete")
    entries = await timeline_of(conversation, receipt["turnId"])
    assert names(entries) == [
        "accepted",
        "lease",
        "worker-asked",
        "worker-ready",
        "started",
        "sent",
        "tool",
        "tool-ended",
        "first-delta",
        "question",
        "answered",
        "committed",
        "delivered",
    ]
    said = {entry["name"]: entry.get("detail", "") for entry in entries}
    assert said["tool"] == "search"
    assert said["question"] == said["answered"] == question
    assert said["committed"] == "completed"
    assert said["delivered"] == "1 stream"
    at = {entry["name"]: entry["sinceStartMs"] for entry in entries}
    assert TOOL_SECONDS * 1e3 - ROUNDED_MS <= at["tool-ended"] - at["tool"] < 20_000
    assert "secret" not in json.dumps(entries)
    assert await timeline_of(conversation, "m1") == entries

    printed = history(run, conversation.key)
    assert [line.split()[3] for line in printed.splitlines()[1:]] == names(entries)
    [shown] = json.loads(history(run, conversation.key, "--json"))["turns"]
    assert (shown["messageId"], shown["turnId"]) == ("m1", receipt["turnId"])
    assert names(shown["entries"]) == names(entries)
    await run.stop()
    assert names(json.loads(history(run, conversation.key, "--json"))["turns"][0]["entries"]) == names(entries)[:-1], (
        "when it was delivered nobody knows any more"
    )


async def test_a_crash_and_a_second_attempt(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open(agentId="again")
    await conversation.send("crash", "m1")
    assert (await conversation.terminal_of("m1")).event == "agent-error"
    entries = await timeline_of(conversation, "m1")
    seen = [name for name in names(entries) if name in ("started", "worker-gone", "requeued", "restart", "committed")]
    assert seen == ["started", "worker-gone", "requeued", "started", "restart", "worker-gone", "committed"]
    assert entries[-2]["detail"] == "failed WORKER_CRASHED"
    assert entries[-1]["name"] == "delivered"


async def test_a_cancel(start_run: Start) -> None:
    run = await start_run(config=CONFIG, environment=ROOT)
    conversation = await client_of(run).open(agentId="tools")
    async with conversation.events() as stream:
        await conversation.send("work", "m1")
        with trio.fail_after(30):
            await stream.next_of("question")
            assert (await conversation.client.call("POST", f"{conversation.path}/cancel", {})).status == 202
            await stream.next_of("cancelled")
    seen = names(await timeline_of(conversation, "m1"))
    assert seen[-5:] == ["question", "cancel-requested", "cancel", "committed", "delivered"]


async def test_another_supervisor_goes_on(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open()
    async with conversation.events() as stream:
        await conversation.send("stream 60 50", "m1")
        await stream.next_of("output")
    os.kill(run.pid, signal.SIGKILL)
    await run.wait_exit()
    await run.start()
    conversation = conversation.through(client_of(run))
    assert (await conversation.terminal_of("m1")).event == "complete"
    entries = await timeline_of(conversation, "m1")
    assert names(entries)[:2] == ["accepted", "started"]
    assert "adopted" in names(entries)
    assert names(entries).count("started") == 1


async def test_what_is_not_there(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open()
    for name in ("nothing", "x" * 300):
        answer = await conversation.client.call("GET", f"{conversation.path}/turns/{name}/timeline")
        assert (answer.status, answer.body["code"]) == (404, "MESSAGE_NOT_FOUND")
    await until(lambda: run.is_up, "it goes on")
