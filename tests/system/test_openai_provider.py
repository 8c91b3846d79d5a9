"""The worker type `openai` against a provider: replies, history, usage, and everything that a provider does wrong."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from lobu_actors.store.embedded import EmbeddedServer
from tests.fakes.model_provider import KEY
from tests.system.audit import broken_promises
from tests.system.conftest import client_of
from tests.system.lobu_process import until
from tests.system.openai_world import PROMPT, Reader, World, running, tell
from tests.system.sse_client import Conversation


@pytest.fixture(scope="module")
def shared(database_server: EmbeddedServer, template_database: str) -> Iterator[World]:
    with running(database_server, template_database, "lobu_openai_provider") as world:
        yield world
        assert KEY not in world.run.errors() + world.run.output()
        assert broken_promises(world.run.database_url) == []


@pytest.fixture
async def world(shared: World) -> AsyncIterator[World]:
    shared.provider = type(shared.provider)()
    async with shared.provider.serving(shared.port):
        yield shared


async def test_a_reply_is_streamed_with_its_usage(world: World) -> None:
    conversation = await world.open("plain")
    reader = Reader(conversation)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.tell, "!slow 0.2 20")
        await until(lambda: reader.text.startswith("w0 w1"), "the first words")
        assert not reader.is_over(), "the words came with the end"
    frame = reader.transcript.terminals[reader.message_id]
    assert frame.event == "complete", frame
    assert frame.data["finalText"] == " ".join(f"w{n}" for n in range(20))
    assert frame.data["usage"] == {"inputTokens": 10, "outputTokens": 20, "totalTokens": 30}


async def test_the_agent_says_prompt_model_and_parameters_and_a_message_may_name_another_model(world: World) -> None:
    conversation = await world.open("plain")
    frame, _ = await tell(conversation, "!body")
    assert json.loads(frame.data["finalText"]) == {
        "model": "test-model", "temperature": 0.5, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    message_id = await conversation.send("!body", model="openai/some/other")
    frame = await conversation.terminal_of(message_id)
    assert json.loads(frame.data["finalText"])["model"] == "some/other"
    assert world.provider.requests[0].body["messages"][0] == {"role": "system", "content": PROMPT}


async def test_the_history_outlives_the_worker_and_leaves_out_what_failed(world: World) -> None:
    conversation = await world.open("plain")
    for content in ("one 🙂", "!status 401", "two"):
        await tell(conversation, content)
    pids = world.run.worker_pids()
    await _end_workers(world, pids)
    frame, _ = await tell(conversation, "!history")
    sent = [(message["role"], message["content"]) for message in json.loads(frame.data["finalText"])]
    assert sent == [
        ("system", PROMPT), ("user", "one 🙂"), ("assistant", "one 🙂"), ("user", "two"), ("assistant", "two"),
        ("user", "!history"),
    ]  # fmt: skip
    path = f"{conversation.path}/session/messages"
    messages = (await conversation.client.call("GET", path)).body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 3
    assert (messages[1]["provider"], messages[1]["model"]) == ("openai", "test-model")
    assert messages[1]["usage"] == {"inputTokens": 10, "outputTokens": 2, "totalTokens": 12}


REFUSALS = [
    ("!status 401 made_up", "PROVIDER_AUTH"),
    ("!status 403 made_up", "PROVIDER_AUTH"),
    ("!status 402 made_up", "PROVIDER_QUOTA"),
    ("!status 429 insufficient_quota", "PROVIDER_QUOTA"),
    ("!status 429 made_up 3600", "PROVIDER_QUOTA"),
    ("!status 400 context_length_exceeded", "PROVIDER_REFUSED"),
    ("!status 404 model_not_found", "PROVIDER_REFUSED"),
    ("!error 401 x", "PROVIDER_AUTH"),
    ("!error rate_limit_exceeded x", "PROVIDER_QUOTA"),
    ("!error 500 x", "PROVIDER_UNAVAILABLE"),
    ("!cut one two three", "PROVIDER_UNAVAILABLE"),
    ("!end one two three", "PROVIDER_UNAVAILABLE"),
    ("!filtered", "PROVIDER_REFUSED"),
]


async def test_what_is_refused_or_cut_is_not_asked_again_and_has_its_code(world: World) -> None:
    conversation = await world.open("plain")
    for content, code in REFUSALS:
        before = len(world.provider.requests)
        frame, statuses = await tell(conversation, content)
        assert (frame.event, frame.data.get("errorCode")) == ("agent-error", code), (content, frame)
        assert len(world.provider.requests) == before + 1, content
        assert statuses == [], content
        assert "sk-" not in json.dumps(frame.data)
    frame, _ = await tell(conversation, "and on")
    assert frame.data["finalText"] == "and on"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("!status 429 made_up", "PROVIDER_QUOTA"),
        ("!status 503", "PROVIDER_UNAVAILABLE"),
        ("!html", "PROVIDER_UNAVAILABLE"),
    ],
)
async def test_what_may_pass_is_asked_again_a_few_times(world: World, content: str, code: str) -> None:
    frame, statuses = await tell(await world.open("plain"), content)
    assert (frame.event, frame.data.get("errorCode")) == ("agent-error", code)
    assert len(world.provider.requests) == 4
    assert [status.rpartition(" (")[2] for status in statuses] == ["1 of 3)", "2 of 3)", "3 of 3)"]


@pytest.mark.parametrize("content", ["!once 503", "!once 429 1", "!cut-once"])
async def test_what_passes_costs_a_wait_that_is_told(world: World, content: str) -> None:
    frame, statuses = await tell(await world.open("plain"), content)
    assert (frame.event, frame.data.get("finalText")) == ("complete", "recovered")
    assert len(world.provider.requests) == 2
    assert len(statuses) == 1
    assert "trying again in " + ("1 s" if "429" in content else "0.05 s") in statuses[0]


@pytest.mark.parametrize(
    ("agent", "content", "code", "text"),
    [
        ("quick", "!hang", "FIRST_OUTPUT_TIMEOUT", ""),
        ("quick-after-output", "!hang-after one two", "NO_PROGRESS", "one two "),
        # Which says more than that a clock ran out.
        ("quick-after-refusal", "!once-hang 503", "PROVIDER_UNAVAILABLE", ""),
    ],
)
async def test_a_provider_that_hangs_is_left_by_our_clocks(
    world: World, agent: str, content: str, code: str, text: str
) -> None:
    reader = Reader(await world.open(agent))
    frame, _ = await reader.tell(content)
    assert (frame.event, frame.data.get("errorCode"), reader.text) == ("agent-error", code, text)
    await until(lambda: world.provider.requests[-1].left, "the worker hangs up")


async def test_thoughts_are_progress(world: World) -> None:
    reader = Reader(await world.open("quick-thoughts"))
    frame, statuses = await reader.tell("!think 7")
    assert (frame.event, frame.data.get("finalText")) == ("complete", "thought"), frame
    assert statuses == ["thinking", "thinking"]


async def test_a_cancel_ends_the_request_at_once(world: World) -> None:
    conversation = await world.open("plain")
    for content in ("!hang", "!slow 0.05 10000"):
        message_id = await conversation.send(content)
        request = await world.asked(content)
        with trio.fail_after(10):  # the grace for a worker that does not listen is 30 s
            answer = await conversation.client.call("POST", f"{conversation.path}/cancel", {"messageId": message_id})
            assert answer.status == 202
            assert (await conversation.terminal_of(message_id)).event == "cancelled"
            await until(lambda request=request: request.left, "the worker hangs up")
    worker = world.worker_of(conversation)
    frame, _ = await tell(conversation, "and on")
    assert frame.data["finalText"] == "and on"
    assert world.worker_of(conversation) == worker, "the worker outlives a cancel"


@pytest.mark.parametrize(
    ("agent", "code", "words"),
    [("no-model", "NO_MODEL_CONFIGURED", "lobu.toml"), ("wrong", "AGENT_SETTINGS_INVALID", "`max_steps` cannot be 0")],
)
async def test_what_is_configured_wrongly_is_said(world: World, agent: str, code: str, words: str) -> None:
    frame, _ = await tell(await world.open(agent), "hi")
    assert (frame.event, frame.data.get("errorCode")) == ("agent-error", code)
    assert words in frame.data["error"]
    assert world.provider.requests == []


async def test_a_provider_that_is_not_there(shared: World) -> None:
    frame, statuses = await tell(await shared.open("plain"), "hi")
    assert (frame.event, frame.data.get("errorCode")) == ("agent-error", "PROVIDER_UNAVAILABLE")
    assert len(statuses) == 3
    assert "could not be reached" in frame.data["error"]


async def test_a_killed_supervisor_takes_no_reply_with_it(
    database_server: EmbeddedServer, template_database: str
) -> None:
    with running(database_server, template_database, "lobu_openai_adopted", start=False) as world:
        try:
            await world.run.start()
            async with world.provider.serving(world.port):
                conversation = await world.open("plain")
                message_id = await conversation.send("!slow 0.1 50")
                await world.asked("!slow 0.1 50")
                await world.run.kill_main()
                await world.run.start()
                frame = await Conversation(client_of(world.run), conversation.key).terminal_of(message_id)
            assert (frame.event, frame.data.get("finalText")) == ("complete", " ".join(f"w{n}" for n in range(50)))
            assert len(world.provider.requests) == 1, "the same attempt went on"
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                await world.run.kill_all()


async def _end_workers(world: World, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not set(pids) & set(world.run.worker_pids()), "the workers are gone")
