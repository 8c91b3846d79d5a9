"""More conversations than there may be workers: workers at rest give their places up, work is never ended for it."""

from __future__ import annotations

import trio

from tests.system.audit import broken_promises, turn_of
from tests.system.cluster import hosts
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, until
from tests.system.sse_client import Conversation

ENDLESS = "sleep 1000"  # until it is cancelled
CONFIG = f"""
[limits]
max_workers = 2
{ECHO}
deadlines = {{ startup_seconds = 20 }}
"""


async def test_a_conversation_gets_the_place_of_one_that_is_at_rest(start_run: Start, database_url: str) -> None:
    run = await start_run(config=CONFIG)
    talks = [await client_of(run).open(userId=f"u{number}") for number in range(5)]
    with trio.fail_after(60):  # not one of them waits until another is idle for long enough, which is five minutes
        for talk in [*talks, talks[0]]:
            assert (await talk.ask("hello")).event == "complete"
            assert len(run.worker_pids()) <= 2
    assert broken_promises(database_url) == []


async def test_those_that_ask_at_once_get_theirs_one_after_the_other(start_run: Start, database_url: str) -> None:
    run = await start_run(config=CONFIG)
    talks = [await client_of(run).open(userId=f"u{number}") for number in range(6)]
    ended: list[str] = []

    async def ask(number: int) -> None:
        ended.append((await talks[number].ask("hello")).event)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(ask, number)
    assert ended == ["complete"] * 6
    assert broken_promises(database_url) == []


async def test_who_works_keeps_its_place(start_run: Start, database_url: str) -> None:
    run = await start_run(config=CONFIG)
    long, idle, third = [await client_of(run).open(userId=user) for user in ("a", "b", "c")]
    running = await long.send(ENDLESS)
    await until(lambda: _runs(database_url, running), "it runs")
    [worker] = run.worker_pids()
    assert (await idle.ask("hello")).event == "complete"
    assert (await third.ask("hello")).event == "complete"
    assert worker in run.worker_pids()
    await _cancel(long, running)
    assert turn_of(database_url, running) == ("cancelled", 1, 0), "nothing else ended it"
    assert broken_promises(database_url) == []


async def test_who_finds_all_at_work_waits_for_longer_than_a_start_may_take(
    start_run: Start, database_url: str
) -> None:
    run = await start_run(config=CONFIG.replace("startup_seconds = 20", "startup_seconds = 5"))
    first, second, third = [await client_of(run).open(userId=user) for user in ("a", "b", "c")]
    running = [await talk.send("stream 60 100") for talk in (first, second)]  # six seconds
    await until(lambda: all(_runs(database_url, message_id) for message_id in running), "they run")
    assert (await third.ask("hello")).event == "complete"
    for talk, message_id in zip((first, second), running, strict=True):
        assert (await talk.terminal_of(message_id)).event == "complete"
    assert broken_promises(database_url) == []


async def test_who_has_waited_for_long_enough_is_told_why(start_run: Start, database_url: str) -> None:
    run = await start_run(config=CONFIG.replace("max_workers = 2", "max_workers = 1\nworker_place_seconds = 1"))
    first, second = [await client_of(run).open(userId=user) for user in ("a", "b")]
    running = await first.send(ENDLESS)
    await until(lambda: _runs(database_url, running), "it runs")
    end = await second.ask("hello")
    assert (end.event, end.data["errorCode"]) == ("agent-error", "WORKER_STARTUP_FAILED")
    assert "max_workers" in str(end.data)
    await _cancel(first, running)
    assert turn_of(database_url, running) == ("cancelled", 1, 0)
    assert broken_promises(database_url) == []


async def test_who_waits_at_a_full_host_goes_to_one_that_has_room(database_url: str) -> None:
    config = CONFIG.replace("max_workers = 2", "max_workers = 1")
    async with hosts(2, config, database_url) as (full, other):
        known, busy, new = [await client_of(full).open(userId=user) for user in ("a", "b", "c")]
        assert (await known.ask("hello")).event == "complete"  # its conversation is the full one's from now on
        running = await busy.send(ENDLESS)
        await until(lambda: _runs(database_url, running), "it runs")
        with trio.fail_after(30):  # worker_place_seconds are 60
            assert (await known.ask("again")).event == "complete"
            assert (await new.ask("hello")).event == "complete"
        assert len(other.worker_pids()) == 1
        assert (await known.ask("history")).data["finalText"] == "4", "with all that was said before"
        await _cancel(busy, running)
    assert broken_promises(database_url) == []


def _runs(url: str, message_id: str) -> bool:
    return turn_of(url, message_id)[0] == "running"


async def _cancel(conversation: Conversation, message_id: str) -> None:
    await conversation.client.call("POST", f"{conversation.path}/cancel", {"messageId": message_id})
    assert (await conversation.terminal_of(message_id)).event == "cancelled"
