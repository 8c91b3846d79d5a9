"""Idle workers: ready before anybody asks, given to one conversation each, replaced, trimmed."""

from __future__ import annotations

import os
import signal

import pytest
import trio
from msgspec.structs import replace

from lobu_actors.contract.frames import Complete
from lobu_actors.contract.ids import ConversationRef
from supervisor.workers import warm
from supervisor.workers.types import WorkerLimits, WorkerType
from supervisor.workspaces.workspace import HostWorkspaces
from tests.integration.workers.conftest import PATIENT, text_of
from tests.system.lobu_process import until

ECHO = ("python", "-m", "lobu_actors.agents.echo")
AGENT = "import os\nfrom lobu_actors.worker import serve\n\ndef reply(turn):\n    yield {text}\n\nserve(reply)\n"
# Says when it has noted what it was loaded from.
TELLS = """
from pathlib import Path
from lobu_actors.worker.sources import Sources
look = Sources.changed_while_loading
def looked(sources):
    found = look(sources)
    Path("{path}").touch()
    return found
Sources.changed_while_loading = looked
"""
NAME = "os.environ['WORKSPACE_DIR']"
LIMITS = replace(PATIENT, warm_free_memory=0.0)
SEEN = f"' '.join([{NAME}, os.path.realpath({NAME}), os.getcwd(), turn.workspace])"


@pytest.fixture
def types(request) -> dict[str, WorkerType]:
    return {"echo": WorkerType("echo", ECHO, zygote=getattr(request, "param", False), warm=2)}


@pytest.fixture
def limits() -> WorkerLimits:
    """However little memory this machine has left just now."""
    return LIMITS


async def full(host, number: int = 2) -> list[int]:
    """The pids of the idle workers, once there are so many."""
    await until(lambda: host.workers.idle >= number, "idle workers")
    return [found.process.pid for found in host.workers._warm._idle["echo"]]


async def switch(host, kind: WorkerType) -> None:
    """As a new start with another configuration would."""
    await full(host)
    host.types["echo"] = kind
    host.workers._warm.drop("echo")


@pytest.mark.parametrize("types", [False, True], indirect=True, ids=["executed", "forked"])
async def test_each_goes_to_one_conversation_and_is_replaced(host):
    idle = await full(host)
    clients = [host.start() for _ in range(5)]
    pids = [(await client.ready()).pid for client in clients]
    assert pids[:2] == idle, "the oldest first"
    assert len(set(pids)) == 5
    assert [await client.reply(f"hello {n}") for n, client in enumerate(clients)] == [f"hello {n}" for n in range(5)]
    assert not set(await full(host)) & set(pids)


async def test_its_workspace_is_its_conversations(host, tmp_path):
    program = tmp_path / "seen.py"
    program.write_text(AGENT.format(text=SEEN))
    await switch(host, WorkerType("echo", ("python", str(program)), warm=2))
    await full(host)
    client = host.start()
    await client.ready()
    client.turn("x")
    name, real, cwd, told = text_of(await client.frames_until(Complete)).split()
    assert real == host.workspaces.of(client.ref).path
    assert (cwd, told) == (real, name)
    client.worker.kill()
    await client.gone()
    await until(lambda: not os.path.lexists(name), "its link is gone")


async def test_one_that_died_is_given_to_nobody(host, wait_for_end):
    idle = await full(host)
    for pid in idle:
        os.kill(pid, signal.SIGKILL)
        await wait_for_end(pid)
    await until(lambda: not host.workers.idle, "none is idle")
    client = await host.ready()
    assert client.pid not in idle
    assert await client.reply("hello") == "hello"


async def test_what_was_started_from_older_code_is_given_to_nobody(host, tmp_path):
    program = tmp_path / "agent.py"
    program.write_text(AGENT.format(text="'old'"))
    await switch(host, WorkerType("echo", ("python", str(program)), warm=2))
    idle = await full(host)
    program.write_text(AGENT.format(text="'new'"))
    client = await host.ready()
    assert client.pid not in idle
    assert await client.reply("x") == "new"


async def test_a_module_that_changed_makes_it_stale(host, tmp_path):
    """The program's own file is as it was; the worker itself knows what it has loaded."""
    (tmp_path / "part.py").write_text("TEXT = 'old'\n")
    program = tmp_path / "agent.py"
    program.write_text("from part import TEXT\n" + TELLS.format(path=tmp_path / "idle") + AGENT.format(text="TEXT"))
    await switch(host, WorkerType("echo", ("python", str(program)), own_user=False, warm=1))
    await full(host, 1)
    await until((tmp_path / "idle").exists, "it knows that it is idle, and of what it is made")
    (tmp_path / "part.py").write_text("TEXT = 'newer'\n")
    gone = await host.start().gone()
    assert gone.reason == "stale"
    client = await host.ready()
    assert await client.reply("x") == "newer"


async def test_none_are_kept_while_memory_is_short(host, monkeypatch):
    await full(host)
    monkeypatch.setattr(warm, "memory_is_short", lambda least: True)
    host.workers._warm._changed.set()
    await until(lambda: not host.workers.idle, "none is idle")
    assert await (await host.ready()).reply("hello") == "hello"


async def test_none_are_kept_of_what_nobody_uses(host):
    await full(host)
    host.workers._warm._used_at["echo"] -= LIMITS.warm_unused_seconds
    host.workers._warm._changed.set()
    await until(lambda: not host.workers.idle, "none is idle")
    await host.ready()
    await full(host)


@pytest.mark.parametrize("limits", [replace(LIMITS, max_workers=3)])
async def test_idle_ones_count_and_make_room(host):
    await full(host)
    clients = [await host.ready() for _ in range(3)]
    await trio.sleep(0.1)
    assert host.workers.idle == 0
    clients[0].worker.kill()
    await clients[0].gone()


async def test_killed_before_it_was_talked_to(host, wait_for_end):
    idle = await full(host)
    client = host.start()
    client.worker.kill()
    await client.gone()
    await wait_for_end(idle[0])


def test_links_that_a_dead_supervisor_left_are_removed(tmp_path):
    workspaces = HostWorkspaces(tmp_path)
    kept, left = (workspaces.lead(name, ConversationRef("org", "agent", name))[0] for name in ("kept", "left"))
    workspaces.keep_links(["kept"])
    assert (os.path.lexists(kept), os.path.lexists(left)) == (True, False)
    workspaces.close()


def test_how_memory_is_judged():
    assert not warm.memory_is_short(0.0)
    assert warm.memory_is_short(1.0)
