"""I7: the same message id is the same turn, however the first asking ended."""

from __future__ import annotations

import psycopg
import trio

from tests.conftest import admin
from tests.system.audit import broken_promises, log_of
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import until
from tests.system.sse_client import Answer, Broken

ACCEPTS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND query LIKE '%INSERT INTO turn (%'"
)
UNANSWERED = "SELECT count(*) FROM turn WHERE length(message_id) > 2"  # m10 and what follows


async def test_a_post_that_was_cut_before_its_answer_can_be_repeated(start_run: Start) -> None:
    run = await start_run()
    client = client_of(run)
    conversation = await client.open()
    for number in range(40):
        message_id = f"cut-{number}"
        body = {"content": f"number {number}", "messageId": message_id}
        await client.request_only("POST", f"{conversation.path}/messages", body)
        answers = [await conversation.post(body["content"], message_id) for _ in range(2)]
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body["turnId"] for answer in answers}) == 1
    for number in range(40):
        frame = await conversation.terminal_of(f"cut-{number}")
        assert frame.data["finalText"] == f"number {number}"
    assert len(log_of(run.database_url, conversation.key)) == 40
    assert broken_promises(run.database_url) == []


async def test_the_same_message_at_the_same_time_is_one_turn(start_run: Start) -> None:
    run = await start_run()
    client = client_of(run)
    conversation = await client.open()
    answers: list[Answer] = []

    async def post() -> None:
        answers.append(await conversation.through(client_of(run)).post("hello", "twin"))

    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(post)
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body["turnId"] for answer in answers}) == 1
    assert (await conversation.terminal_of("twin")).event == "complete"
    # Long after the end it is still the same turn, and nothing runs again.
    late = await conversation.post("hello", "twin")
    assert late.body["turnId"] == answers[0].body["turnId"]
    assert (await conversation.ask("next")).event == "complete"
    assert [(kind, name == "twin") for _, kind, name in log_of(run.database_url, conversation.key)] == [
        ("complete", True),
        ("complete", False),
    ]


async def test_a_post_whose_answer_died_with_the_process_can_be_repeated_at_the_next(start_run: Start) -> None:
    run = await start_run()
    conversation = await client_of(run).open()
    outcomes: list[Answer | Broken] = []

    async def post(number: int) -> None:
        try:
            outcomes.append(await conversation.through(client_of(run)).post("sleep 0.05", f"m{number}"))
        except Broken as error:
            outcomes.append(error)

    for number in range(10):
        await post(number)
    assert [isinstance(outcome, Answer) for outcome in outcomes] == [True] * 10
    with psycopg.connect(run.database_url) as other:
        other.execute("LOCK TABLE turn IN EXCLUSIVE MODE")  # no acceptance is committed, so none is answered
        async with trio.open_nursery() as nursery:
            for number in range(10, 60):
                nursery.start_soon(post, number)
            await until(lambda: admin(run.database_url, ACCEPTS) != [(0,)], "an acceptance is under way")
            await run.kill_all()
    # That one is committed now, with nobody left to answer.
    assert [isinstance(outcome, Broken) for outcome in outcomes[10:]] == [True] * 50
    await until(lambda: admin(run.database_url, UNANSWERED) != [(0,)], "it was accepted")
    await run.start()
    again = conversation.through(client_of(run))
    for number in range(60):
        await again.send("sleep 0.05", f"m{number}")
    for number in range(60):
        assert (await again.terminal_of(f"m{number}")).event == "complete"
    ended = [str(name) for _, kind, name in log_of(run.database_url, conversation.key) if kind != "restart"]
    assert sorted(ended) == sorted(f"m{number}" for number in range(60))
    assert broken_promises(run.database_url) == []
