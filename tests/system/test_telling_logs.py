"""What was told in secret is in no log: messages, replies, questions, answers, keys, tokens, environments of workers.

What a worker prints is its own, and stands in `worker.output`: these print nothing that they were told.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import trio

from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO

MARK = "hushhush"
CONFIG = f"""
[workers.tools]
command = ["python", "-m", "tests.system.tool_worker"]
[[agents]]
id = "tools"
worker = "tools"
guardrails = [ {{ kind = "pattern", pattern = "{MARK}-forbidden", message = "No {MARK}." }} ]
{ECHO}"""


async def test_neither_secrets_nor_contents_are_logged(start_run: Start) -> None:
    environment = {
        "LOBU_LOG": "json",
        "LOBU_ADMIN_KEY": f"lobu_{MARK}admin-key-of-the-test",
        "LOBU_JWT_KEYS": f"k1:{MARK * 6}",
        "WORKER_ENV_OPENAI_API_KEY": f"sk-{MARK}{MARK}{MARK}",
        "WORKER_ENV_PYTHONPATH": str(Path(__file__).parents[2]),
    }
    run = await start_run(config=CONFIG, environment=environment)
    run.admin_key = environment["LOBU_ADMIN_KEY"]
    client = client_of(run)
    talk = await client.open(agentId="tools", thread=MARK[:4])
    async with talk.events() as stream:
        await talk.send(f"{MARK} please", platform=f"{MARK}-field")
        with trio.fail_after(30):
            question = (await stream.next_of("question")).data["questionId"]
            path = f"{talk.path}/questions/{question}/answer"
            assert (await client.call("POST", path, {"answer": f"{MARK} yes"})).status == 200
            assert MARK in (await stream.next_of("complete")).data["finalText"]
    echo = await client.open()
    for content in (f"crash 3 {MARK}", f"fail CODE {MARK}", f"garbage {MARK}", f"exit0 {MARK}", f"{MARK}\0"):
        answer = await echo.post(content)
        if answer.status == 200:
            await echo.terminal_of(answer.body["messageId"])
    assert (await talk.ask(f"{MARK}-forbidden")).event == "agent-error"
    assert (await echo.post("x", onBusy=MARK)).status == 400
    assert (await client.call("GET", f"/api/v1/agents/{MARK}")).status == 404
    await echo.send(f"sleep 1000 {MARK}", f"{MARK}-message")
    assert (await client.call("POST", f"{echo.path}/cancel", {})).status == 202
    assert await run.stop() == 0

    logged = run.errors() + run.output()
    events = [json.loads(line)["event"] for line in run.errors().splitlines() if line.startswith("{")]
    assert {"attempt failed", "worker gone", "worker.broken_line"} <= set(events), "there was something to log"
    found = [line for line in logged.splitlines() if re.search(MARK, line, re.IGNORECASE)]
    assert found == []
