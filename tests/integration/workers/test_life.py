"""A worker's life as a conversation sees it: start, turns, and every way to end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from lobu_actors.contract.frames import Answer, Ask, Cancel, Complete, Delta, Fail
from lobu_actors.conversation.worker_port import Gone, WorkerFrames, WorkerGone
from supervisor.workers.service import WorkersNotRunning
from supervisor.workers.types import WorkerType
from tests.integration.workers.conftest import PATIENCE, PATIENT


async def test_a_turn_from_start_to_complete(host):
    client = host.start()
    assert [info.state for info in host.workers.snapshot()] == ["starting"]
    ready = await client.ready()
    assert ready.worker_id == client.worker.worker_id
    assert ready.capabilities >= {"ask", "cancel", "reattach"}
    assert await client.reply("hello   world") == "hello   world"
    (info,) = host.workers.snapshot()
    assert (info.state, info.pid, info.worker) == ("ready", ready.pid, "echo")
    assert host.workers.token_of(info.worker_id)


async def test_frames_sent_before_ready_are_kept(host):
    client = host.start()
    client.turn("early")
    await client.ready()
    assert isinstance((await client.frames_until(Complete))[-1], Complete)


async def test_the_second_turn_sees_the_first_in_the_session_file(host):
    client = await host.ready()
    await client.reply("one")
    assert await client.reply("history") == "2"
    data, _mark = await host.workspaces.of(client.worker.request.ref).read_session()
    entries = [json.loads(line) for line in data.splitlines()]
    assert [entry["type"] for entry in entries] == ["session", *["message"] * 4]
    assert [entry["message"]["role"] for entry in entries[1:]] == ["user", "assistant"] * 2
    assert [entry["parentId"] for entry in entries[1:]] == [None, *[entry["id"] for entry in entries[1:-1]]]


async def test_a_question_is_answered(host):
    client = await host.ready()
    run_id = client.turn("ask Which one?")
    ask = (await client.frames_until(Ask))[-1]
    assert ask.prompt == "Which one?"
    client.worker.send(Answer(run_id=run_id, question_id=ask.question_id, answer="this one"))
    assert [frame.text for frame in await client.frames_until(Complete) if isinstance(frame, Delta)] == ["this one"]


@pytest.mark.parametrize("text", ["sleep 1000", "ask never answered", "stream 100000 1"])
async def test_a_cancelled_turn_ends_and_the_worker_lives(host, text):
    client = await host.ready()
    run_id = client.turn(text)
    client.worker.send(Cancel(run_id=run_id, reason="user", grace_seconds=1))
    fail = (await client.frames_until(Fail))[-1]
    assert fail.code == "CANCELLED"
    assert await client.reply("still here") == "still here"


async def test_a_failing_turn_leaves_the_worker_alive(host):
    client = await host.ready()
    client.turn("fail PROVIDER_QUOTA used up")
    fail = (await client.frames_until(Fail))[-1]
    assert (fail.code, fail.message) == ("PROVIDER_QUOTA", "used up")
    client.turn("sleep soon")  # no number: an exception of the handler's own
    fail = (await client.frames_until(Fail))[-1]
    assert fail.code == "WORKER_FAILED"
    assert "ValueError" in fail.message
    assert await client.reply("still here") == "still here"


async def test_killed_from_outside(host):
    client = await host.ready()
    client.turn("hang")
    os.kill(client.pid, signal.SIGKILL)
    gone = await client.gone()
    assert (gone.reason, gone.exit_code, gone.signal) == (Gone.EXITED, None, signal.SIGKILL)
    await client.assert_nothing_more()
    assert host.workers.snapshot() == ()


async def test_killed_by_us(host):
    client = await host.ready()
    client.turn("hang")
    client.worker.kill()
    client.worker.kill()
    gone = await client.gone()
    assert (gone.reason, gone.signal) == (Gone.EXITED, signal.SIGKILL)
    client.worker.kill()
    client.worker.shutdown(1)
    client.turn("to nobody")
    await client.assert_nothing_more()


@pytest.mark.parametrize(("text", "code"), [("exit0", 0), ("crash", 1), ("crash 124", 124), ("crash mid 7", 7)])
async def test_exits_without_a_terminal_frame(host, text, code):
    client = await host.ready()
    client.turn(text)
    gone = await client.gone()
    assert (gone.reason, gone.exit_code) == (Gone.EXITED, code)


async def test_a_frame_before_the_crash_comes_before_the_end(host):
    client = await host.ready()
    client.turn("crash mid")
    assert isinstance(await client.next(), WorkerFrames)
    assert isinstance(await client.next(), WorkerGone)


async def test_closes_its_socket_and_lives_on(host, wait_for_end):
    client = await host.ready()
    client.turn("close")
    gone = await client.gone()
    assert (gone.reason, gone.signal) == (Gone.SOCKET_CLOSED, signal.SIGKILL)
    await wait_for_end(client.pid)


async def test_garbage_after_frames(host, wait_for_end):
    client = await host.ready()
    client.turn("garbage")
    frames = await client.next()
    assert isinstance(frames, WorkerFrames)
    assert [frame.text for frame in frames.frames] == ["before the garbage"]
    gone = await client.gone()
    assert gone.reason == Gone.PROTOCOL
    await wait_for_end(client.pid)


async def test_never_ready(host, is_alive):
    client = host.start("mute", startup_seconds=0.1)
    gone = await client.gone()
    assert gone.reason == Gone.NOT_STARTED
    assert "0.1 s" in gone.detail


async def test_cannot_start(host, tmp_path: Path):
    plain = tmp_path / "plain"
    plain.write_text("no program")
    host.types["plain"] = WorkerType("plain", (str(plain),))
    host.types["huge"] = WorkerType("huge", ("sh", "-c", "x" * 200_000))
    for worker, said in [
        ("absent", "was not found"),
        ("plain", "not executable"),
        ("quits", "exited with code 3"),
        ("huge", "too large"),
        ("unheard-of", "no worker type"),
    ]:
        gone = await host.start(worker).gone()
        assert gone.reason == Gone.NOT_STARTED
        assert said in gone.detail
    gone = await host.start("quits").gone()
    assert gone.exit_code == 3


async def test_wrong_protocol_and_run_frames_before_ready(host, script):
    gone = await host.start(script("future", "say('ready', protocol=2)\nhear()\n")).gone()
    assert gone.reason == Gone.NOT_STARTED
    assert "protocol 2" in gone.detail
    gone = await host.start(script("hasty", "say('delta', runId='r', text='x')\nhear()\n")).gone()
    assert gone.reason == Gone.NOT_STARTED
    assert "before `ready`" in gone.detail
    gone = await host.start(script("noise", "link.sendall(b'noise\\n')\nhear()\n")).gone()
    assert gone.reason == Gone.NOT_STARTED


async def test_unknown_frames_are_dropped_and_logs_pass(host, script):
    name = script("odd", "say('log', message='starting')\nsay('ready')\nsay('dance')\nsay('heartbeat')\nhear()\n")
    client = await host.ready(name)
    signal_ = await client.next()
    assert [frame.TYPE for frame in signal_.frames] == ["heartbeat"]


async def test_killed_while_it_starts(host):
    client = host.start("mute")
    client.worker.kill()
    gone = await client.gone()
    assert gone.reason == Gone.NOT_STARTED
    await client.assert_nothing_more()


async def test_shutdown_ends_an_idle_worker_by_itself(host):
    client = await host.ready()
    client.worker.shutdown(1000)
    gone = await client.gone()
    assert (gone.reason, gone.exit_code) == (Gone.EXITED, 0)


async def test_shutdown_kills_a_deaf_worker_after_the_grace(host):
    client = await host.ready()
    client.turn("hang")
    client.worker.shutdown(0.05)
    gone = await client.gone()
    assert (gone.reason, gone.signal) == (Gone.EXITED, signal.SIGKILL)


async def test_complete_comes_before_the_end_however_fast_the_exit(host, script):
    name = script("brief", "say('ready')\nhear()\nsay('complete', runId='run-1')\nos._exit(0)\n")
    for _ in range(200):
        client = host.start(name)
        client.turn("x")
        await client.ready()
        frames = await client.next()
        assert isinstance(frames, WorkerFrames)
        assert isinstance(frames.frames[0], Complete)
        gone = await client.next()
        assert isinstance(gone, WorkerGone)
        assert (gone.reason, gone.exit_code) == (Gone.EXITED, 0)


async def test_a_receiver_that_fails_costs_only_its_worker(host, wait_for_end):
    async def deliver(signal_):
        raise ValueError("the actor is gone")

    client = host.start(deliver=deliver)
    other = await host.ready()
    with trio.fail_after(PATIENCE):
        while len(host.workers.snapshot()) > 1:
            await trio.testing.wait_all_tasks_blocked(0.001)
    assert await other.reply("unharmed") == "unharmed"
    assert client.worker.state == "gone"


class TestSlots:
    @pytest.fixture
    def limits(self):
        return replace(PATIENT, max_workers=1)

    async def test_a_start_over_the_limit_waits_for_a_slot(self, host):
        first = await host.ready()
        second = host.start(startup_seconds=20)
        await second.assert_nothing_more()
        assert second.worker.state == "waiting"
        first.worker.kill()
        await first.gone()
        await second.ready()

    async def test_its_startup_time_begins_with_its_slot(self, host):
        first = await host.ready()
        second = host.start(startup_seconds=0.0)  # no worker is as fast as that
        await second.assert_nothing_more()
        assert second.worker.state == "waiting"
        first.worker.kill()
        assert "ready within 0 s" in (await second.gone()).detail

    @pytest.mark.parametrize("limits", [replace(PATIENT, max_workers=1, place_seconds=0.5)])
    async def test_it_does_not_wait_for_longer_than_is_set(self, host):
        await host.ready()
        gone = await host.start(startup_seconds=20).gone()
        assert gone.reason == Gone.NOT_STARTED
        assert "All 1 workers of this host had work for 0.5 s" in gone.detail

    async def test_one_that_is_killed_while_it_waits_takes_none(self, host):
        first = await host.ready()
        second = host.start(startup_seconds=20)
        await second.assert_nothing_more()
        second.worker.kill()
        assert (await second.gone()).reason == Gone.NOT_STARTED
        first.worker.kill()
        await first.gone()
        await host.ready()


@pytest.mark.parametrize("limits", [replace(PATIENT, stop_grace_seconds=PATIENCE)])
async def test_stopping_the_service_lets_all_end_by_themselves(host):
    clients = [await host.ready() for _ in range(2)]
    host.workers_context.stopping.set()
    assert [(await client.gone()).exit_code for client in clients] == [0, 0]
    with trio.fail_after(PATIENCE):
        while host.workers._nursery is not None:
            await trio.testing.wait_all_tasks_blocked(0.001)
    with pytest.raises(WorkersNotRunning):
        host.start()


@pytest.mark.parametrize("limits", [replace(PATIENT, stop_grace_seconds=0.2)])
async def test_stopping_the_service_ends_who_is_deaf(host, wait_for_end):
    client = await host.ready()
    client.turn("hang")
    host.workers_context.stopping.set()
    assert (await client.gone()).signal == signal.SIGKILL
    await wait_for_end(client.pid)
