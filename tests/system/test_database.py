"""The database goes away and comes back: nothing that was acknowledged is lost, nothing is done twice."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import pytest
import trio

from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.migrate import migrate
from lobu_actors.store.postmaster import read_pid_file
from tests.conftest import admin
from tests.system.audit import broken_promises, log_of, owed, turn_of
from tests.system.conftest import Start, client_of
from tests.system.load import Load
from tests.system.lobu_process import ECHO, LobuRun, until
from tests.system.sse_client import Broken, Conversation, Transcript
from tests.workers import gated

RESTARTS = 3
SERVICE_SECONDS = 2.0  # from the server's readiness to an accepted message
LATE_SECONDS = 20.0  # the same when the machine had something else to do just then
GATED = f"""
[workers.gated]
command = ["python", "{gated.__file__}", "{{folder}}"]
[[agents]]
id = "gated"
worker = "gated"
"""


async def test_the_embedded_server_crashes_under_load(start_run: Start) -> None:
    run = await start_run(database_url=None)
    load = Load(run, turns=400, conversations=20, clients=10)
    delays: list[float] = []
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_crash_often, run, load, delays)
            await load.go()
    assert len(delays) == RESTARTS, "the load was over before the crashes"
    assert min(delays) < SERVICE_SECONDS, delays
    assert max(delays) < LATE_SECONDS, delays
    assert load.faults() == []
    assert load.missing() == set()
    assert load.strange() == set()
    assert set(load.counts()) <= {"complete", "MY_CODE"}, "an outage is nobody's failure"
    # A message that was refused with 503 may have been accepted all the same: nobody was told of it but the sweeper.
    await until(lambda: owed(run.database_url) == 0, "what a crash left is swept")
    assert broken_promises(run.database_url, accepted=load.accepted) == []
    assert await run.stop() == 0
    assert run.processes() == []


async def _crash_often(run: LobuRun, load: Load, delays: list[float]) -> None:
    for number in range(1, RESTARTS + 1):
        await until(lambda: len(load.terminals()) > 80 * number, "turns end")  # noqa: B023
        before = run.postmaster_pid()
        os.kill(before, signal.SIGQUIT)
        await until(lambda: _ready_pid(run) not in (None, before), "another server is ready")  # noqa: B023
        ready = time.monotonic()
        while True:
            try:
                conversation = await client_of(run).open()
                if (await conversation.post("hello")).status == 200:
                    break
            except (Broken, AssertionError):
                pass
            await trio.sleep(0.01)
        delays.append(time.monotonic() - ready)


def _ready_pid(run: LobuRun) -> int | None:
    found = read_pid_file(run.folder / ".lobu" / "pgdata")
    return found.pid if found is not None and found.ready else None


@pytest.fixture
async def own_server() -> AsyncIterator[EmbeddedServer]:
    """A server elsewhere, as `lobu run` sees it; migrated, and the test's to stop."""
    folder = Path(tempfile.mkdtemp(prefix="lobu-elsewhere-"))
    server = EmbeddedServer(folder)
    await server.start()
    try:
        await migrate(server.url)
        yield server
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
            await server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


@attrs.frozen
class Gate:
    """What messages `gate` to the agent `gated` wait for."""

    folder: Path

    def open(self) -> None:
        (self.folder / "gate").touch()


@pytest.fixture
def gate(server_folder: Path) -> Gate:
    server_folder.chmod(0o755)  # workers have users of their own
    return Gate(server_folder)


async def test_an_outage_of_an_external_server_pauses_and_fails_nothing(
    start_run: Start, own_server: EmbeddedServer, gate: Gate
) -> None:
    run = await start_run(database_url=own_server.url, config=ECHO + GATED.format(folder=gate.folder))
    client = client_of(run)
    turns = {}
    # One goes on through the outage, two end in it.
    for agent, content in (("echo", "stream 600 15"), ("gated", "gate"), ("gated", "gate")):
        conversation, transcript = await client.open(agentId=agent), Transcript()
        turns[await conversation.send(content)] = (conversation, transcript)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            for message_id, (conversation, transcript) in turns.items():
                nursery.start_soon(transcript.follow, conversation, _ended(transcript, message_id))
            # Who comes while the store is away is told to come again.
            await until(lambda: all(transcript.texts for _, transcript in turns.values()), "all run, and are heard")
            await own_server.stop("fast")
            # Two renewals missed: three to four seconds have passed.
            await until(lambda: run.errors().count("host lease not renewed") >= 2, "the outage is noticed")
            gate.open()
            waited = [(transcript, name) for name, (_, transcript) in turns.items()][1:]
            await until(
                lambda: all(gated.GOES_ON in transcript.texts[name] for transcript, name in waited), "two have said all"
            )
            answer = await conversation.post("gate")
            assert (answer.status, answer.body["code"]) == (503, "STORE_UNAVAILABLE")
            assert (await client.call("GET", "/health/ready")).status == 503
            assert (await client.call("GET", "/health/live")).status == 200
            await own_server.start()
            message_id = answer.body["details"]["messageId"]
            again = await _until_accepted(conversation, message_id)
    assert again == message_id
    for message_id, (_, transcript) in turns.items():
        assert transcript.faults == []
        assert transcript.connections == 1, "no stream was broken off"
        assert transcript.terminals[message_id].event == "complete"
        assert turn_of(own_server.url, message_id) == ("completed", 1, 0)
    assert (await conversation.terminal_of(again)).event == "complete"
    assert broken_promises(own_server.url) == []
    assert {kind for conversation, _ in turns.values() for _, kind, _ in log_of(own_server.url, conversation.key)} == {
        "complete"
    }


def _ended(transcript: Transcript, message_id: str) -> Callable[[], bool]:
    return lambda: message_id in transcript.terminals


def _all_running(url: str, number: int) -> bool:
    return admin(url, "SELECT count(*) FROM run WHERE status = 'live'") == [(number,)]


async def _until_accepted(conversation: Conversation, message_id: str) -> str:
    with trio.fail_after(60):
        while (answer := await conversation.post("gate", message_id)).status != 200:
            assert answer.status == 503
            await trio.sleep(0.01)
    return str(answer.body["messageId"])


async def test_a_stop_while_the_database_is_away_is_on_time_and_loses_nothing(
    start_run: Start, own_server: EmbeddedServer, gate: Gate
) -> None:
    config = "[limits]\ndrain_grace_seconds = 1\n" + ECHO + GATED.format(folder=gate.folder)
    run = await start_run(database_url=own_server.url, config=config)
    client = client_of(run)
    speaking, queued_in = await client.open(agentId="gated"), await client.open(agentId="gated")
    first = await speaking.send("gate")  # for longer than the grace
    waiting = [await queued_in.send("gate") for _ in range(2)]
    await until(lambda: _all_running(own_server.url, 2), "both run")
    await own_server.stop("fast")
    assert await run.stop(40) == 0
    assert run.processes() == []
    assert "Traceback" not in run.errors(), run.errors()
    await own_server.start()
    gate.open()
    await run.start()
    for conversation, message_id in ((speaking, first), *((queued_in, name) for name in waiting)):
        frame = await conversation.through(client_of(run)).terminal_of(message_id)
        assert frame.event == "complete"
    assert turn_of(own_server.url, first)[:2] == ("completed", 2)
    assert broken_promises(own_server.url) == []
