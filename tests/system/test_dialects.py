"""Whole `lobu run` processes, asked in other people's protocols: by clients of theirs, and by strict readers of ours.

All clients are run by `make interop-clients`; here stands what can be done in seconds.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import httpx_sse
import openai
import psycopg
import pytest
import trio

from lobu_actors.store.embedded import EmbeddedServer
from tests.conftest import admin, url_of
from tests.fakes.dialect_readers import READERS, Outcome
from tests.fakes.model_provider import ModelProvider
from tests.interop.clients.world import CONFIG, World, environment_of
from tests.system.audit import broken_promises
from tests.system.lobu_process import LobuRun, free_port, until

CALL_SECONDS = 40.0


@pytest.fixture(scope="module")
def shared(database_server: EmbeddedServer, template_database: str) -> Iterator[tuple[World, int]]:
    """One run for all tests; the provider is each test's own, at the same port."""
    folder, port, name = Path(tempfile.mkdtemp(prefix="lobu-system-")), free_port(), "lobu_dialects"
    admin(database_server.url, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy")
    url = url_of(database_server, name)
    environment = environment_of(f"http://127.0.0.1:{port}/v1")
    run = LobuRun(
        folder, config=CONFIG, database_url=url, arguments=("--port", str(free_port())), environment=environment
    )
    try:
        trio.run(run.start)
        yield World(run), port
        trio.run(partial(until, lambda: broken_promises(url) == [], "nothing is owed, and every promise was kept"))
    finally:
        trio.run(run.kill_all)
        shutil.rmtree(folder, ignore_errors=True)
        admin(database_server.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def place(shared: tuple[World, int]) -> Iterator[World]:
    yield shared[0]
    while _clients:
        _clients.pop().close()


@pytest.fixture
async def provider(shared: tuple[World, int]) -> AsyncIterator[ModelProvider]:
    async with ModelProvider().serving(shared[1]) as provider:
        yield provider


_clients: list[openai.OpenAI] = []  # whose connections are closed at their test's end, not by the garbage collector


def client_of(place: World) -> Any:
    _clients.append(openai.OpenAI(base_url=f"{place.run.url}/v1", api_key=place.run.admin_key, timeout=CALL_SECONDS))
    return _clients[-1]


async def in_thread(call: Callable[[], Any]) -> Any:
    with trio.fail_after(CALL_SECONDS + 20):
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


def chat(place: World, content: str, *, agent: str = "echo", seen: Callable[[str], None] | None = None) -> str:
    """The text of a streamed chat completion; raises what the client raises."""
    said, finished = "", False
    messages: Any = [{"role": "user", "content": content}]
    for chunk in client_of(place).chat.completions.create(model=agent, messages=messages, stream=True):
        said += chunk.choices[0].delta.content or ""
        finished = chunk.choices[0].finish_reason == "stop"
        if seen is not None and said:
            seen(said)
    assert finished, "it ended and did not say so"
    return said


async def test_openais_client_gets_a_reply_models_usage_and_one_piece(place: World, provider: ModelProvider) -> None:
    assert await in_thread(lambda: chat(place, "hello there")) == "hello there"
    client = client_of(place)

    def ask() -> None:
        assert {model.id for model in client.models.list()} == {"echo", "impatient", "model", "tools"}
        assert client.models.retrieve("echo").id == "echo"
        whole = client.chat.completions.create(model="model", messages=[{"role": "user", "content": "one two"}])
        assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("one two", "stop")
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (10, 2, 12)
        response = client.responses.create(model="echo", input="hello")
        assert (response.output_text, response.status) == ("hello", "completed")

    await in_thread(ask)


async def test_what_was_said_before_and_instructions_reach_the_agent(place: World, provider: ModelProvider) -> None:
    """Of a client that sends the whole conversation each time, and names none."""
    messages: Any = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "two"},
    ]
    client = client_of(place)

    def ask() -> str:
        answer = client.chat.completions.create(model="tools", messages=messages)
        return str(answer.choices[0].message.content)

    assert await in_thread(ask) == "2 before; be brief; two"
    # A provider is asked with them too.
    raw = client.with_options(max_retries=0)
    messages[-1]["content"] = "!history"
    answer = await in_thread(lambda: raw.chat.completions.create(model="model", messages=messages))
    sent = json.loads(answer.choices[0].message.content)
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]


async def test_openais_client_carries_out_a_call(place: World) -> None:
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    client = client_of(place).with_options(default_headers={"X-Lobu-Conversation": "looking"})
    messages: Any = [{"role": "user", "content": "look"}]

    def ask() -> Any:
        return client.chat.completions.create(model="tools", messages=messages, tools=[tool]).choices[0]

    asked = await in_thread(ask)
    assert (asked.finish_reason, asked.message.content) == ("tool_calls", "I look. ")
    [call] = asked.message.tool_calls
    messages += [asked.message, {"role": "tool", "tool_call_id": call.id, "content": "42"}]
    assert (await in_thread(ask)).message.content == "The tool said: 42"


@pytest.mark.parametrize("sent", ["chat", "ui"])
async def test_an_answer_that_is_sent_again_is_the_same_answer(place: World, sent: str) -> None:
    """Not a message: its client was cut off, and knows no more than that."""
    [dialect] = [one for one in SENT if one.dialect == sent]
    path, name = dialect.path, f"asking-{sent}"

    async def say(content: str) -> Outcome:
        headers = bearer(place) | {"X-Lobu-Conversation": name, "Idempotency-Key": content}
        async with httpx.AsyncClient(base_url=place.run.url, headers=headers, timeout=CALL_SECONDS) as http:
            if content == "ask which?" and sent == "ui":  # whose stream stays open for the answer
                with trio.move_on_after(2):
                    await http.post(path, json=dialect.body(content, name))
                return Outcome()
            return READERS[sent]((await http.post(path, json=dialect.body(content, name))).content)

    await say("ask which?")
    first, again = await say("this one"), await say("this one")
    assert [(told.end, told.text) for told in (first, again)] == [("complete", "this one")] * 2
    with psycopg.connect(place.run.database_url, autocommit=True) as connection:
        key = f"echo_admin_local_{name}"
        rows = connection.execute("SELECT content FROM turn WHERE conversation_id = %s", (key,)).fetchall()
    assert rows == [("ask which?",)]


LOOK: Any = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}},
}


@pytest.mark.parametrize("name", [None, "shipped"])
async def test_the_shipped_agent_has_its_clients_tools_called(
    place: World, provider: ModelProvider, name: str | None
) -> None:
    """Whether the client sends the whole conversation each time, or names it: the model sees the same."""
    client = client_of(place).with_options(default_headers={"X-Lobu-Conversation": name} if name else {})
    messages: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "!tool look {}\n!said"}]

    def ask(**more: Any) -> Any:
        return client.chat.completions.create(model="model", messages=messages, **more).choices[0]

    asked = await in_thread(lambda: ask(tools=[LOOK], tool_choice="required", temperature=0.25))
    assert asked.finish_reason == "tool_calls"
    [call] = asked.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("look", "{}")
    messages += [asked.message, {"role": "tool", "tool_call_id": call.id, "content": "42"}]
    said = await in_thread(lambda: ask(tools=[LOOK]))
    assert (said.finish_reason, said.message.content) == ("stop", "42")
    first, second = provider.requests
    assert (first.body["tools"], first.body["tool_choice"], first.body["temperature"]) == ([LOOK], "required", 0.25)
    assert "tool_choice" not in second.body
    roles = [message["role"] for message in second.body["messages"]]
    assert roles == ["system", "user", "assistant", "tool"], "the result is one, and no message of the user's"
    messages += [said.message, {"role": "user", "content": "!history"}]
    history = json.loads((await in_thread(lambda: ask(tools=[LOOK]))).message.content)
    assert [message["role"] for message in history] == [*roles, "assistant", "user"]
    assert history[3] == {"role": "tool", "tool_call_id": call.id, "content": "42"}


@pytest.mark.parametrize("content", ["crash mid", "stream 2000 5"])
async def test_a_worker_that_dies_in_its_reply_is_an_error_at_openais_client(place: World, content: str) -> None:
    """Not a success with half a text, and not a silent end."""
    seen: list[str] = []
    failed: list[openai.APIError] = []

    def ask() -> None:
        try:
            chat(place, content, seen=seen.append)
        except openai.APIError as error:
            failed.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, ask)
        await until(lambda: seen or failed, "the first text")
        if content != "crash mid":
            await place.kill_workers()
    assert failed[0].code == "WORKER_CRASHED"
    assert seen


@pytest.mark.parametrize(
    ("content", "code", "status"), [("!status 401", "PROVIDER_AUTH", 502), ("!status 429", "PROVIDER_QUOTA", 429)]
)
async def test_what_a_provider_refuses_is_asked_for_once(
    place: World, provider: ModelProvider, content: str, code: str, status: int
) -> None:
    """OpenAI's client repeats such answers by itself, unless it is told not to: each would be another turn."""

    def ask() -> openai.APIStatusError:
        messages: Any = [{"role": "user", "content": content}]
        with pytest.raises(openai.APIStatusError) as caught:
            client_of(place).chat.completions.create(model="model", messages=messages)
        return caught.value

    error = await in_thread(ask)
    assert (error.status_code, error.code) == (status, code)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("agent", "content", "code"),
    [("model", "!cut half a text", "PROVIDER_UNAVAILABLE"), ("impatient", "!hang-after half a text", "NO_PROGRESS")],
)
async def test_a_provider_that_stops_in_the_middle_is_an_error_behind_what_was_said(
    place: World, provider: ModelProvider, agent: str, content: str, code: str
) -> None:
    seen: list[str] = []

    def ask() -> openai.APIError:
        with pytest.raises(openai.APIError) as caught:
            chat(place, content, agent=agent, seen=seen.append)
        return caught.value

    assert (await in_thread(ask)).code == code
    assert seen[-1].strip() == "half a text"


async def test_a_client_that_goes_away_cancels(place: World) -> None:
    def ask() -> None:
        stream = client_of(place).chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": "stream 5000 10"}],
            stream=True,
            extra_headers={"X-Lobu-Conversation": "gone"},
        )
        for chunk in stream:
            if chunk.choices[0].delta.content:
                stream.close()
                break
        address = f"{place.run.url}/api/v1/agents/echo_admin_local_gone/events"
        with httpx.stream("GET", address, headers=bearer(place), timeout=CALL_SECONDS) as events:
            assert any(line == "event: cancelled" for line in events.iter_lines())

    await in_thread(ask)


async def test_httpx_sse_reads_on_over_a_restart(place: World) -> None:
    """As its own page says: reconnect with the last id. The text is whole, and said once."""

    def read(stop_at: list[str]) -> str:
        with httpx.Client(base_url=place.run.url, headers=bearer(place), timeout=CALL_SECONDS) as http:
            key = http.post("/api/v1/agents", json={"thread": "sse"}).json()["agentId"]
            path = f"/api/v1/agents/{key}"
            message = http.post(f"{path}/messages", json={"content": "stream 150 10"}).json()["messageId"]
            said, last = "", ""
            while True:
                headers = {"Last-Event-ID": last} if last else {}
                try:
                    with httpx_sse.connect_sse(http, "GET", f"{path}/events?messageId={message}", headers=headers) as s:
                        for event in s.iter_sse():
                            last, data = event.id or last, event.json()
                            said = "" if event.event == "restart" else said + data.get("content", "")
                            stop_at.append(said)
                            if event.event == "complete":
                                assert data["finalText"].startswith(said)
                                return str(data["finalText"])
                except httpx.HTTPError:
                    continue

    seen: list[str] = []
    whole: list[str] = []
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            whole.append(await in_thread(lambda: read(seen)))

        nursery.start_soon(follow)
        await until(lambda: any(seen), "the first text")
        await place.kill()
    assert whole == ["".join(f"word{number} " for number in range(150))]


# --- strict readers


@attrs.frozen
class Sent:
    dialect: str
    path: str
    body: Callable[[str, str], dict[str, Any]]


def _message(text: str) -> list[dict[str, Any]]:
    return [{"id": f"u-{text[:9]}", "role": "user", "content": text, "parts": [{"type": "text", "text": text}]}]


SENT = [
    Sent("chat", "/v1/chat/completions", lambda text, _: {"model": "echo", "stream": True, "messages": _message(text)}),
    Sent("responses", "/v1/responses", lambda text, _: {"model": "echo", "stream": True, "input": text}),
    Sent("ui", "/api/v1/ui/echo/chat", lambda text, name: {"id": name, "messages": _message(text)}),
    Sent(
        "ag-ui",
        "/api/v1/ag-ui/echo",
        lambda text, name: {"threadId": name, "runId": f"r-{name}", "messages": _message(text)},
    ),
]


def bearer(place: World) -> dict[str, str]:
    return {"Authorization": f"Bearer {place.run.admin_key}"}


async def stream(place: World, sent: Sent, text: str, begun: Callable[[], None] = lambda: None) -> Outcome:
    raw = b""
    async with (
        httpx.AsyncClient(base_url=place.run.url, headers=bearer(place), timeout=CALL_SECONDS) as http,
        http.stream("POST", sent.path, json=sent.body(text, f"{sent.dialect}-{len(text)}")) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        async for piece in answer.aiter_raw():
            raw += piece
            if b"word3" in raw:
                begun()
    return READERS[sent.dialect](raw)


async def follow(place: World, sent: Sent, text: str, begun: trio.Event, outcomes: list[Outcome]) -> None:
    outcomes.append(await stream(place, sent, text, begun.set))


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: sent.dialect)
async def test_a_strict_reader_of_a_long_reply(place: World, sent: Sent) -> None:
    outcome = await stream(place, sent, "stream 300 1")
    assert (outcome.end, outcome.text) == ("complete", "".join(f"word{n} " for n in range(300)))


@pytest.mark.parametrize(("act", "code"), [("kill_workers", "WORKER_CRASHED"), ("restart", "SERVER_RESTARTING")])
async def test_strict_readers_when_something_dies_in_their_replies(place: World, act: str, code: str) -> None:
    """Each is told so by its own protocol's error, and nothing of what follows is out of form."""
    begun = [trio.Event() for _ in SENT]
    outcomes: list[Outcome] = []
    async with trio.open_nursery() as nursery:
        for sent, event in zip(SENT, begun, strict=True):
            nursery.start_soon(follow, place, sent, f"stream 250 20 {act}", event, outcomes)
        for event in begun:
            await event.wait()
        await getattr(place, act)()
    assert [(outcome.end, outcome.code) for outcome in outcomes] == [("error", code)] * len(SENT)
