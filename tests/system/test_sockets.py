"""Other people's WebSockets against a whole `lobu run`: Node's, and a Chromium's that has nothing but tickets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from tests.system.audit import broken_promises
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun, free_port
from tests.system.sse_client import Conversation

SCENARIO = Path(__file__).parents[1] / "clients" / "socket_scenario.mjs"
SECONDS = 60
SOCKETS = 5  # before the one that says what was seen
SEEN = {
    "piece": "output",
    "whole": "".join(f"word{number} " for number in range(40)),
    "same": True,
    "answer": "yes",
    "cancelled": "cancelled",
    "crashed": "WORKER_CRASHED",
    "twice": [],
}


def node() -> str:
    """Node with a WebSocket of its own: from version 22, or 20.10 with a flag."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node is not installed here")
    return found


def socket_url(run: LobuRun, conversation: Conversation) -> str:
    return run.url.replace("http:", "ws:") + conversation.path + "/socket"


def node_command(url: str, run: LobuRun, *more: str) -> list[str]:
    return [node(), "--experimental-websocket", "--no-warnings", str(SCENARIO), url, run.admin_key, *more]


async def what_was_seen(conversation: Conversation) -> dict[str, object]:
    """The last message that the client sent, which says what it saw; the worker has echoed it."""
    end = await conversation.terminal_of("m5", seconds=SECONDS)
    assert end.event == "complete", end
    found: dict[str, object] = json.loads(end.data["finalText"].removeprefix("seen "))
    return found


async def test_node_sends_reads_resumes_answers_and_cancels(start_run: Start) -> None:
    run = await start_run(config=ECHO)
    conversation = await client_of(run).open()
    with trio.fail_after(SECONDS):
        await trio.run_process(node_command(socket_url(run, conversation), run))
    seen = await what_was_seen(conversation)
    assert seen.pop("sockets") == SOCKETS
    assert seen == SEEN
    assert broken_promises(run.database_url, accepted=["m1", "m2", "m3", "m4", "m5"]) == []


async def test_a_server_that_is_killed_in_the_middle_of_a_reply_is_only_a_pause(start_run: Start) -> None:
    run = await start_run(config=ECHO, arguments=("--port", str(free_port())))
    conversation = await client_of(run).open()
    told: list[subprocess.CompletedProcess[bytes]] = []

    async def follow() -> None:
        command = node_command(socket_url(run, conversation), run, "stream 120 25")
        told.append(await trio.run_process(command, capture_stdout=True))

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            async with conversation.events() as stream:  # before it, so that no pause of ours has it miss the reply
                nursery.start_soon(follow)
                await stream.next_of("output")
            await run.kill_main()
            await run.start()
    seen = json.loads(told[0].stdout)
    assert 1006 in seen.pop("codes")
    assert seen == {"event": "complete", "begins": True, "twice": []}


async def test_chromium_with_tickets_alone(start_run: Start) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed here (apt-get install chromium)")
    run = await start_run(config=ECHO)
    client = client_of(run)
    conversation = await client.open()
    tickets = [
        (await client.call("POST", f"{conversation.path}/events/ticket")).body["ticket"] for _ in range(SOCKETS + 1)
    ]
    with tempfile.TemporaryDirectory(prefix="lobu-chromium-", ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "page.html"
        page.write_text(f'<!doctype html><script type="module">{SCENARIO.read_text()}</script>')
        address = f"{page.as_uri()}#{quote(' '.join([socket_url(run, conversation), *tickets]))}"
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command += ["--remote-debugging-port=0", address]
        with trio.fail_after(SECONDS):
            browser = await trio.lowlevel.open_process(command, stderr=subprocess.DEVNULL, process_group=0)
            try:
                seen = await what_was_seen(conversation)
            finally:
                os.killpg(browser.pid, signal.SIGKILL)
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    await browser.wait()
    assert seen.pop("sockets") == SOCKETS
    assert seen == SEEN
