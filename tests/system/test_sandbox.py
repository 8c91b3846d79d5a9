"""Sandboxed workers under a whole `lobu run`: what they reach, what is said of those that cannot start, what a
supervisor that is killed and started again does for them."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from tests.sandbox_world import PROGRAM, PYTHON, bwrap_missing
from tests.system.audit import broken_promises
from tests.system.conftest import client_of
from tests.system.lobu_process import LobuRun, lobu_run, until
from tests.system.sse_client import Conversation, Frame

pytestmark = pytest.mark.skipif(bool(bwrap_missing()), reason=bwrap_missing())

FETCH = """
import time, urllib.request
def fetch(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status
    except OSError as error:
        return getattr(error, "code", None) or str(error)
import os
health = os.environ["DISPATCHER_URL"] + "/health/ready"
"""
# On the SDK, so that it can go on with a supervisor that did not start it; and so on the interpreter of this project.
WAITS = """
from lobu_actors.worker import Turn, serve
def reply(turn: Turn):
    open("mine", "w").write("still here")
    while not os.path.exists("temp/go"):
        time.sleep(0.01)
    yield f"{fetch(health)} {open('mine').read()}"
serve(reply)
"""


def _config(program: str) -> str:
    return f"""
[workers.boxed]
command = ["{PYTHON}", "{program}"]
sandbox = "bwrap"
network = ["dispatcher"]
[workers.alone]
command = ["{PYTHON}", "{program}"]
sandbox = "bwrap"
[workers.waits]
command = ["python", "{program}.waits"]
sandbox = "bwrap"
network = ["dispatcher"]
[workers.demanding]
command = ["{program}.hidden/program"]
own_user = true
[[agents]]
id = "boxed"
worker = "boxed"
default = true
[[agents]]
id = "alone"
worker = "alone"
[[agents]]
id = "waits"
worker = "waits"
[[agents]]
id = "demanding"
worker = "demanding"
"""


@asynccontextmanager
async def _run(database_url: str) -> AsyncIterator[LobuRun]:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    async with lobu_run(database_url=database_url, arguments=("--port", str(port)), start=False) as run:
        run.folder.chmod(0o711)  # so that workers may have users of their own, when this is root
        program = run.folder / "runs_python.py"
        shutil.copy(PROGRAM, program)
        program.chmod(0o644)
        (run.folder / "runs_python.py.waits").write_text(FETCH + WAITS)
        hidden = run.folder / "runs_python.py.hidden"
        hidden.mkdir(mode=0o700)
        (hidden / "program").write_text("#!/bin/sh\n")
        (hidden / "program").chmod(0o700)
        (run.folder / "lobu.toml").write_text(_config(str(program)))
        await run.start()
        yield run


async def _open(run: LobuRun, agent: str) -> Conversation:
    return await client_of(run).open(agentId=agent)


def _text(frame: Frame) -> str:
    assert frame.event == "complete", frame
    return str(frame.data["finalText"]).strip()


async def test_the_dispatcher_is_reached_where_it_is_listed_and_nothing_else(database_url: str) -> None:
    async with _run(database_url) as run:
        boxed, alone, demanding = [await _open(run, agent) for agent in ("boxed", "alone", "demanding")]
        assert _text(await boxed.ask(FETCH + "print(fetch(health))")) == "200"
        assert _text(await boxed.ask(FETCH + "print(fetch('http://example.com/'))")) == "403"
        assert "refused" in _text(await alone.ask(FETCH + "print(fetch(health))"))
        refused = (await demanding.ask("hello")).data
        assert refused["errorCode"] == "WORKER_STARTUP_FAILED"
        assert "own_user = true" in run.errors()
        assert not broken_promises(run.database_url)


async def test_an_adopted_worker_keeps_its_way_out_and_its_files(database_url: str) -> None:
    async with _run(database_url) as run:
        waits = await _open(run, "waits")
        message_id = await waits.send("begin")
        workspaces = run.folder / ".lobu" / "workspaces"
        await until(lambda: list(workspaces.glob("*/mine")), "the worker is at work")
        [mine] = workspaces.glob("*/mine")
        before = run.worker_pids()
        await run.kill_main()
        await run.start()
        assert run.worker_pids() == before
        (mine.parent / "temp" / "go").touch()
        assert _text(await waits.terminal_of(message_id, 20.0)) == "200 still here"
        assert run.worker_pids() == before
