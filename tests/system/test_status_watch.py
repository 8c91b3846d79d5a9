"""`lobu status --watch` on a terminal, which it leaves as it was, and in a pipe."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from lobu_actors.store.embedded import EmbeddedServer
from tests.conftest import admin, url_of
from tests.system.conftest import client_of, shared_run
from tests.system.lobu_process import ECHO, LobuRun, until
from tests.system.terminal import on_terminal

ENTER, LEAVE, CLEAR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[2J"


@pytest.fixture(scope="module")
def run(database_server: EmbeddedServer, template_database: str) -> Iterator[LobuRun]:
    admin(database_server.url, f"CREATE DATABASE lobu_watch TEMPLATE {template_database} STRATEGY file_copy")
    with shared_run(ECHO, url_of(database_server, "lobu_watch")) as run:
        yield run
    admin(database_server.url, "DROP DATABASE lobu_watch WITH (FORCE)")


def words(*more: str) -> list[str]:
    return [sys.executable, "-m", "supervisor.cli.main", "status", "--watch", *more]


async def test_it_is_drawn_in_place_fits_and_leaves_the_terminal_as_it_was(run: LobuRun) -> None:
    conversation = await client_of(run).open()
    await conversation.send("sleep 1000", "running-one")
    await conversation.send("behind it", "queued-one")
    await until(run.worker_pids, "it runs")
    with on_terminal(words(), run.folder, run.environment) as terminal:
        screen = await terminal.until("running-one")
        assert any("queued  " in line and "queued-one" in line for line in screen)
        assert any(line.startswith("hosts ") for line in screen)
        assert terminal.settings != terminal.before, "keys come at once"
        terminal.resize(50, 8)
        screen = await terminal.until("turns ")
        while len(screen) > 8:
            screen = await terminal.until("turns ")
        assert all(len(line) <= 50 for line in screen)
        assert any("more" in line for line in screen), "what does not fit is counted"
        await terminal.until("turns ")
        terminal.press(b"x")
        terminal.press(b"q")
        assert await terminal.wait() == 0
        assert terminal.written.count(ENTER) == terminal.written.count(LEAVE) == 1
        assert terminal.written.endswith(LEAVE)
        assert CLEAR not in terminal.written
        assert terminal.settings == terminal.before
    await client_of(run).call("POST", f"{conversation.path}/cancel", {})


@pytest.mark.parametrize("how", ["ctrl-c", "terminated"])
async def test_it_ends_cleanly(run: LobuRun, how: str) -> None:
    with on_terminal(words(), run.folder, run.environment) as terminal:
        await terminal.until("hosts ")
        if how == "ctrl-c":
            terminal.press(b"\x03")
        else:
            terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.wait() == 0
        assert terminal.written.endswith(LEAVE)
        assert "Traceback" not in terminal.written
        assert terminal.settings == terminal.before


@contextmanager
def piped(run: LobuRun, *more: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        words(*more), cwd=run.folder, env=run.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_in_a_pipe_it_prints_once_an_interval_and_nothing_for_a_terminal(run: LobuRun) -> None:
    with piped(run) as process:

        def two() -> str:
            assert process.stdout is not None
            text = ""
            while text.count("gateway  ") < 2:
                text += process.stdout.readline()
            return text

        with trio.fail_after(30):
            text = await trio.to_thread.run_sync(two, abandon_on_cancel=True)
        assert "\n\ngateway  " in text
        assert "\x1b" not in text
        process.send_signal(signal.SIGINT)
        with trio.fail_after(30):
            _, errors = await trio.to_thread.run_sync(process.communicate, abandon_on_cancel=True)
        assert (process.returncode, errors) == (0, "")


async def test_another_folder_names_the_server(run: LobuRun, tmp_path: Path) -> None:
    """As where units listen somewhere else than on the default port: nothing in a folder says where."""
    conversation = await client_of(run).open()
    await conversation.send("hello")
    command = [sys.executable, "-m", "supervisor.cli.main"]
    environment = {**run.environment, "LOBU_ADMIN_KEY": run.admin_key}

    async def told(*more: str) -> Any:
        words = [*command, *more, "--json", "--gateway", run.url]
        return json.loads((await trio.run_process(words, cwd=tmp_path, env=environment, capture_stdout=True)).stdout)

    status = await told("status")
    assert status["gateway"] == {"url": run.url, "state": "ready"}
    assert len(status["inside"]) == 1
    async with conversation.events() as stream:
        await stream.next_of("complete")
    [turn] = (await told("history", conversation.key, "--timeline"))["turns"]
    assert "delivered" in [entry["name"] for entry in turn["entries"]]


async def test_as_json_it_is_one_document_a_line(run: LobuRun) -> None:
    with piped(run, "--json") as process:
        assert process.stdout is not None
        for _ in range(2):
            with trio.fail_after(30):
                shown = json.loads(await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True))
            assert shown["gateway"]["state"] == "ready"
            assert isinstance(shown["owed"], list)
        process.stdout.close()
        with trio.fail_after(30):
            await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
        assert process.returncode == 1, "nobody reads it any more"
