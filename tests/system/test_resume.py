"""Resuming: from any id that was ever sent, a reader that comes back gets exactly what it lacks."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import trio

from tests.system.conftest import Start, client_of
from tests.system.lobu_process import until
from tests.system.sse_client import TERMINALS, Broken, Conversation, EventStream, Frame, Transcript

RAW = Path(__file__).parent.parent / "workers" / "raw.py"
CONFIG = f"""
[limits]
streams_per_conversation = 50

[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[workers.asks]
command = ["{sys.executable}", "{RAW}", "asks"]
[workers.speaks]
command = ["{sys.executable}", "{RAW}", "speaks_until_answered"]

[[agents]]
id = "echo"
worker = "echo"
default = true
[[agents]]
id = "asks"
worker = "asks"
[[agents]]
id = "speaks"
worker = "speaks"
"""
DROPS = 300


async def test_a_reader_that_drops_three_hundred_times_ends_with_the_whole_text(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open(agentId="speaks")
    dice = random.Random(1)
    message_id = await conversation.send("go")
    transcript = Transcript()
    drops, answered = 0, False
    with trio.fail_after(90):
        while message_id not in transcript.terminals:
            where = {} if transcript.last_id is None else {dice.choice(["last_event_id", "since"]): transcript.last_id}
            wanted = dice.randint(0, 4) if drops < DROPS else sys.maxsize
            async with conversation.events(**where) as stream:
                while wanted and message_id not in transcript.terminals:
                    frame = await stream.next()
                    assert frame is not None, "the stream ended by itself"
                    if frame.event != "connected":
                        transcript.take(frame)
                        wanted -= 1
                    if drops == DROPS and not answered:  # until then there was more to come
                        await _answer(conversation, next(f for f in transcript.frames if f.event == "question"), "yes")
                        answered = True
            drops += 1
    assert transcript.faults == []
    whole = transcript.terminals[message_id].data["finalText"]
    assert whole == "".join(f"word{number} " for number in range(whole.count(" ")))
    assert transcript.texts[message_id] == whole


async def test_every_cursor_of_an_ended_conversation_gives_the_rest(start_run: Start) -> None:
    """The log read from any id that a reader saw, by header and by address, is the log's own rest."""
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open(agentId="asks")
    seen = Transcript()
    last = ""

    async def talk() -> None:
        nonlocal last
        for number in range(4):
            last = await conversation.send(f"turn {number}")
            await _answer_next(conversation, seen, f"answer {number}")

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            await seen.follow(conversation, lambda: last != "" and len(seen.terminals) == 4)
    assert seen.faults == []
    assert [frame.data["finalText"] for frame in seen.terminals.values()] == [
        f"before while it waits after answer {number}" for number in range(4)
    ]
    log = [frame for frame in seen.frames if frame.id is not None and "." not in frame.id]
    assert [frame.event for frame in log] == ["question", "question-answered", "complete"] * 4
    cursors = list(dict.fromkeys(frame.id for frame in seen.frames if frame.id is not None))
    assert any("." in cursor for cursor in cursors)
    for cursor in ["0", *cursors]:
        behind = int(cursor.split(".")[0])
        rest = [frame for frame in log if int(frame.id or "") > behind]
        for where in ({"since": cursor}, {"last_event_id": cursor}, {"last_event_id": cursor, "since": "0"}):
            assert await _first(conversation, len(rest), **where) == rest, f"from {where}"


async def test_every_cursor_of_a_waiting_turn_gives_the_rest_of_its_text(start_run: Start) -> None:
    """While a question is open, and again after it: the text goes on where the cursor says, on both of its sides."""
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open(agentId="asks")
    message_id = await conversation.send("go")
    first = Transcript()
    with trio.fail_after(30):
        await first.follow(conversation, lambda: first.texts.get(message_id) == "before while it waits ")
    question = next(frame for frame in first.frames if frame.event == "question")
    holds = {
        None: "",  # nothing: all of the text comes
        "0": "",
        "0.1.0": "",
        "0.1.3": "bef",
        "0.1.7": "before ",
        question.id: "before ",
        f"{question.id}.1.7": "before ",
        f"{question.id}.1.9": "before wh",
        f"{question.id}.1.22": "before while it waits ",
    }
    resumed: dict[str | None, Transcript] = {}
    finished: list[str | None] = []

    async def follow(cursor: str | None, held: str) -> None:
        transcript = resumed[cursor] = Transcript()
        if cursor is not None:
            transcript.last_id, transcript.seq = cursor, int(cursor.split(".")[0])
        transcript.texts[message_id] = held
        await transcript.follow(conversation, lambda: message_id in transcript.terminals)
        finished.append(cursor)

    def all_wait() -> bool:
        return len(resumed) == len(holds) and all(
            transcript.texts[message_id] == "before while it waits " for transcript in resumed.values()
        )

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for cursor, held in holds.items():
                nursery.start_soon(follow, cursor, held)
            await until(all_wait, "all have come to the question")
            await _answer(conversation, question, "yes")
    assert len(finished) == len(holds)
    for cursor, transcript in resumed.items():
        assert transcript.faults == [], f"from {cursor}"
        assert transcript.texts[message_id] == "before while it waits after yes", f"from {cursor}"


@pytest.mark.parametrize("cursor", ["x", "-1", "1.2", "1.2.3.4", "9" * 30])
async def test_what_was_never_an_id_is_refused(start_run: Start, cursor: str) -> None:
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open()
    answer = await conversation.client.call("GET", f"{conversation.path}/events?since={cursor}")
    assert (answer.status, answer.body["code"]) == (400, "INVALID_CURSOR")


async def test_a_cursor_from_the_future_is_answered_by_a_gap_and_all_there_is(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open()
    await conversation.ask("hello")
    async with conversation.events(last_event_id="999") as stream:
        with trio.fail_after(10):
            assert [(await stream.next_of("gap", "complete")).event for _ in range(2)] == ["gap", "complete"]


async def test_the_stream_of_one_message_ends_with_it_and_only_then(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open()
    async with conversation.events() as stream:
        first = await conversation.send("ask Go on?")
        question = await stream.next_of("question")
    second = await conversation.send("say the second")
    async with conversation.events(message_id=second) as stream:
        await _answer(conversation, question, "yes")
        assert await _finals(stream) == ["yes", "say the second"]
    async with conversation.events(message_id=first) as stream:
        assert await _finals(stream) == ["yes"]


async def _finals(stream: EventStream) -> list[str]:
    """The replies that a stream tells until it ends by itself."""
    finals = []
    with trio.fail_after(20):
        while (frame := await stream.next()) is not None:
            if frame.event == "complete":
                finals.append(frame.data["finalText"])
    return finals


async def _first(conversation: Conversation, number: int, **where: str) -> list[Frame]:
    """The first `number` durable frames from a cursor; with 0, none may come before the stream is cut."""
    found: list[Frame] = []
    async with conversation.events(**where) as stream:
        with trio.fail_after(10):
            while len(found) < number:
                frame = await stream.next()
                if frame is None:
                    raise Broken("ended")
                assert frame.event in ("connected", "question", "question-answered", *TERMINALS), frame
                if frame.id is not None:
                    found.append(frame)
    return found


async def _answer_next(conversation: Conversation, transcript: Transcript, answer: str) -> None:
    """Wait for a question that has no answer yet and its text behind it, answer it, wait for the end."""
    before = len(transcript.terminals)

    def question() -> Frame | None:
        asked = [frame for frame in transcript.frames if frame.event == "question"]
        return asked[-1] if len(asked) > before else None

    while (found := question()) is None or not transcript.texts.get(found.data["messageId"], "").endswith("waits "):
        await transcript.changed()
    await _answer(conversation, found, answer)
    while len(transcript.terminals) == before:
        await transcript.changed()


async def _answer(conversation: Conversation, question: Frame, answer: str) -> None:
    path = f"{conversation.path}/questions/{question.data['questionId']}/answer"
    assert (await conversation.client.call("POST", path, {"answer": answer})).status == 200
