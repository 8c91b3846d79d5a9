"""I7: the same message id is the same turn, however the first asking ended."""

from __future__ import annotations

import os
import signal

import trio

from tests.system.audit import broken_promises, log_of
from tests.system.conftest import Start, client_of
from tests.system.sse_client import Answer, Broken


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
    some_came = trio.Event()

    async def post(number: int) -> None:
        try:
            outcomes.append(await conversation.through(client_of(run)).post("sleep 0.05", f"m{number}"))
        except Broken as error:
            outcomes.append(error)
        if len(outcomes) > 10:
            some_came.set()

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(post, number)
        await some_came.wait()
        os.kill(run.pid, signal.SIGKILL)  # at once: to look for all processes takes longer than the other answers
        await run.kill_all()
    assert any(isinstance(outcome, Broken) for outcome in outcomes), "the kill came too late to cut an answer"
    await run.start()
    again = conversation.through(client_of(run))
    for number in range(60):
        await again.send("sleep 0.05", f"m{number}")
    for number in range(60):
        assert (await again.terminal_of(f"m{number}")).event == "complete"
    ended = [str(name) for _, kind, name in log_of(run.database_url, conversation.key) if kind != "restart"]
    assert sorted(ended) == sorted(f"m{number}" for number in range(60))
    assert broken_promises(run.database_url) == []
