"""Cancelling and ending, also against workers that do not listen and while workers die: always one terminal event."""

from __future__ import annotations

import random
from collections import Counter

import trio

from tests.conftest import admin
from tests.system.audit import broken_promises, log_of
from tests.system.conftest import Start, client_of
from tests.system.load import Load
from tests.system.lobu_process import ECHO, until
from tests.system.sse_client import Transcript

CONFIG = f"""
[limits]
cancel_grace_seconds = 0.5
crash_loop_crashes = 1000
{ECHO}"""
RUNS = "SELECT 1 FROM run JOIN turn ON turn_id = ANY (turn_ids) WHERE message_id = '{}' AND run.status = 'live'"


async def test_a_worker_that_is_deaf_to_it_is_cancelled_all_the_same(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open()
    for content in ("hang", "sleep 1000", "freeze"):
        message_id = await conversation.send(content)
        behind = await conversation.send("behind it")
        await until(lambda: admin(run.database_url, RUNS.format(message_id)), "its worker is sent it")  # noqa: B023
        answer = await conversation.client.call("POST", f"{conversation.path}/cancel", {"messageId": message_id})
        assert answer.status == 202
        assert (await conversation.terminal_of(message_id)).event == "cancelled"
        assert (await conversation.terminal_of(behind)).data["finalText"] == "behind it"
    assert broken_promises(run.database_url) == []


async def test_cancels_race_replies_and_deaths(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    load = Load(run, turns=300, conversations=10, clients=12)
    dice = random.Random(3)
    answers: Counter[int] = Counter()

    async def cancel() -> None:
        client = client_of(run)
        while True:
            await trio.sleep(0.01)
            under_way = sorted(load.missing())
            if under_way:
                message_id = dice.choice(under_way)
                path = f"{load.accepted[message_id].path}/cancel"
                answers[(await client.call("POST", path, {"messageId": message_id})).status] += 1

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            nursery.start_soon(load.kill_workers, 0.2)
            await load.go()
            nursery.cancel_scope.cancel()
    assert answers[202] > 10, answers
    assert all(status < 500 for status in answers), answers
    assert load.counts()["cancelled"] > 10
    assert (load.faults(), load.missing(), load.strange()) == ([], set(), set())
    assert broken_promises(run.database_url, accepted=load.accepted) == []


async def test_ending_a_conversation_ends_all_that_it_owes_and_nothing_comes_behind(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    conversation, transcript = await client_of(run).open(), Transcript()
    owed = [await conversation.send(content) for content in ("stream 100000 5", "second", "third")]
    with trio.fail_after(60):
        await transcript.follow(conversation, lambda: transcript.texts.get(owed[0]))
        answer = await conversation.client.call("DELETE", conversation.path)
        assert answer.status == 200
        await transcript.follow(conversation, lambda: transcript.frames[-1].event == "closed")
    assert transcript.faults == []
    assert {transcript.terminals[message_id].event for message_id in owed} == {"cancelled"}
    assert (await conversation.post("too late")).status in (404, 409)
    assert log_of(run.database_url, conversation.key)[-1][1] == "closed"
    assert broken_promises(run.database_url) == []
