"""Lobu under a real systemd: what each kind of end means for turns that run, and that nothing of it is left."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest
import trio

from tests.system.audit import broken_promises, owed, turn_of
from tests.system.lobu_process import until
from tests.system.sse_client import Conversation, Transcript
from tests.systemd.harness import Machine
from tests.systemd.installed import EDGES, EVERY, LOBU, POSTGRES, SPAWNER, SUPERVISOR, Lobu, installed

pytestmark = pytest.mark.timeout(400)
SECONDS = 60.0
ENDLESS = 50_000  # words, a piece of 30 ms each: until it is stopped


@pytest.fixture
async def lobu(off: Machine) -> AsyncIterator[Lobu]:
    async with installed(off) as made:
        yield made


class Reader:
    """A client that stays connected, as far as there is anything to be connected to."""

    def __init__(self, conversation: Conversation, nursery: trio.Nursery) -> None:
        self.conversation = conversation
        self.transcript = Transcript()
        nursery.start_soon(self.transcript.follow, conversation, lambda: False)

    async def grows(self, message_id: str) -> None:
        """More of the reply is here than when this was called."""
        before = self._length(message_id)
        await until(lambda: self._length(message_id) > before, f"more of {message_id}", SECONDS)

    async def ends(self, message_id: str) -> str:
        """Its reply, or its error code."""
        await until(lambda: message_id in self.transcript.terminals, f"the end of {message_id}", SECONDS)
        assert not self.transcript.faults
        frame = self.transcript.terminals[message_id]
        return str(frame.data["finalText"] if frame.event == "complete" else frame.data.get("errorCode"))

    async def stop(self, message_id: str) -> str:
        """Cancel it; what was there of its reply."""
        path = f"{self.conversation.path}/cancel"
        assert (await self.conversation.client.call("POST", path, {"messageId": message_id})).status == 202
        await until(lambda: message_id in self.transcript.terminals, f"the end of {message_id}", SECONDS)
        assert not self.transcript.faults
        assert self.transcript.terminals[message_id].event == "cancelled"
        return self.transcript.texts[message_id]

    def _length(self, message_id: str) -> int:
        return len(self.transcript.texts.get(message_id, ""))


def words(number: int) -> str:
    return "".join(f"word{n} " for n in range(number))


async def test_a_turn_goes_on_whatever_ends_but_the_spawner(lobu: Lobu) -> None:
    """Kill, watchdog, restart of the supervisor and of the target, kills of both edges and of the database."""
    async with trio.open_nursery() as nursery:
        reader = Reader(await lobu.client.open(), nursery)
        message_id = await reader.conversation.send(f"stream {ENDLESS} 30")
        await reader.grows(message_id)
        spawner = await lobu.pid(SPAWNER)
        for unit in (SUPERVISOR, *EDGES, POSTGRES):
            before = await lobu.pid(unit)
            await lobu.kill(unit)
            await lobu.started_again(unit, before)
            await reader.grows(message_id)
        before = await lobu.pid(SUPERVISOR)
        await lobu.machine.run("systemctl", "restart", SUPERVISOR)
        await lobu.started_again(SUPERVISOR, before)
        await reader.grows(message_id)
        await lobu.machine.run("systemctl", "restart", "lobu.target")
        await lobu.ready()
        await reader.grows(message_id)
        before = await lobu.pid(SUPERVISOR)
        await lobu.kill(SUPERVISOR, signal.SIGSTOP)
        await lobu.started_again(SUPERVISOR, before)
        assert "Watchdog timeout" in await lobu.machine.journal(SUPERVISOR)
        await reader.grows(message_id)
        assert words(ENDLESS).startswith(await reader.stop(message_id))
        assert turn_of(lobu.database_url, message_id) == ("cancelled", 1, 0)
        again = await reader.conversation.send("and on it goes")
        assert await reader.ends(again) == "and on it goes"
        assert await lobu.pid(SPAWNER) == spawner
        assert broken_promises(lobu.database_url) == []
        nursery.cancel_scope.cancel()


async def test_the_end_of_the_spawner_is_the_end_of_its_workers_and_of_nothing_else(lobu: Lobu) -> None:
    async with trio.open_nursery() as nursery:
        reader = Reader(await lobu.client.open(), nursery)
        message_id = await reader.conversation.send("stream 3000 30")
        await reader.grows(message_id)
        workers, supervisor = set(lobu.processes(SPAWNER)), await lobu.pid(SUPERVISOR)
        before = await lobu.pid(SPAWNER)
        await lobu.kill(SPAWNER)
        assert await reader.ends(message_id) == "WORKER_CRASHED"
        await lobu.started_again(SPAWNER, before)
        assert not workers & set(lobu.processes(SPAWNER))
        again = await reader.conversation.send("here again")
        assert await reader.ends(again) == "here again"
        assert await lobu.pid(SUPERVISOR) == supervisor
        assert broken_promises(lobu.database_url) == []
        nursery.cancel_scope.cancel()


async def test_a_stop_drains_and_leaves_nothing(lobu: Lobu) -> None:
    async with trio.open_nursery() as nursery:
        reader = Reader(await lobu.client.open(), nursery)
        message_id = await reader.conversation.send("stream 150 30")
        await reader.grows(message_id)
        await lobu.machine.run("systemctl", "stop", "lobu.target")
        for unit in EVERY:
            await lobu.state(unit, "inactive")
        nursery.cancel_scope.cancel()
    for unit in EVERY:
        assert await lobu.machine.show(unit, "Result") == "success"
        assert await lobu.machine.show(unit, "ExecMainStatus") == "0"
        assert lobu.processes(unit) == []
    await lobu.start()
    assert turn_of(lobu.database_url, message_id) == ("completed", 1, 0)
    assert broken_promises(lobu.database_url) == []


@pytest.mark.parametrize("how", [pytest.param("reboot", marks=pytest.mark.slow), "power failure"])
async def test_turns_that_are_owed_finish_after_the_machine_is_back(off: Machine, how: str) -> None:
    async with installed(off) as lobu:
        talks = [await lobu.client.open() for _ in range(3)]
        owed_ones = [await talk.send(text) for talk in talks for text in ("stream 600 30", "the next one")]
        await until(lambda: owed(lobu.database_url) == len(owed_ones), "all are owed")
        if how == "reboot":
            await lobu.machine.halt()
        else:
            lobu.machine.power_off()
    await off.boot()
    await lobu.ready()
    with off.network():
        await until(lambda: owed(lobu.database_url) == 0, "nothing is owed any more", 180)
        assert {turn_of(lobu.database_url, message_id)[0] for message_id in owed_ones} == {"completed"}
        assert broken_promises(lobu.database_url, accepted=owed_ones) == []


async def test_an_install_can_be_repeated_and_taken_back(lobu: Lobu) -> None:
    before = await lobu.pid(SUPERVISOR)
    assert "already" in await lobu.install()
    assert await lobu.pid(SUPERVISOR) == before
    assert "removed /etc/systemd/system/lobu.target" in await lobu.machine.run(LOBU, "systemd", "uninstall")
    assert await lobu.machine.ask("systemctl", "list-unit-files", "--no-legend", "lobu*") == ""
    assert not any(lobu.processes(unit) for unit in EVERY)
    assert lobu.machine.path("/etc/lobu/credentials/admin_key").exists()
