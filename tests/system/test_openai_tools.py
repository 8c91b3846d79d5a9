"""The worker type `openai` with tools: real MCP servers over stdio, steering between steps, and what is left behind."""

# ruff: noqa: ASYNC240 - small and local files
from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import trio

from lobu_actors.store.embedded import EmbeddedServer
from tests.sandbox_world import bwrap_missing
from tests.system.audit import broken_promises
from tests.system.lobu_process import until
from tests.system.openai_world import KEY, MCP_SERVER, World, running, tell
from tests.system.sse_client import Conversation

ADD = '!tool tools__add {"a": 2, "b": 3}'
MCP_END_SECONDS = 15.0  # 2 on its own, 2 after SIGTERM, and a busy machine


@pytest.fixture(scope="module")
def shared(database_server: EmbeddedServer, template_database: str) -> Iterator[World]:
    with running(database_server, template_database, "lobu_openai_tools") as world:
        yield world
        assert KEY not in world.run.errors() + world.run.output()
        assert "executed, not forked" not in world.run.errors(), "its imports do not keep it from being a zygote"
        assert broken_promises(world.run.database_url) == []


@pytest.fixture
async def world(shared: World) -> AsyncIterator[World]:
    shared.provider = type(shared.provider)()
    async with shared.provider.serving(shared.port):
        yield shared


@pytest.mark.parametrize("agent", ["tools", "forked"])
async def test_a_tool_is_called_told_of_and_remembered(world: World, agent: str) -> None:
    conversation = await world.open(agent)
    frame, statuses = await tell(conversation, f"!say Let me see.\n{ADD}\n!said")
    assert frame.event == "complete", (frame, world.run.log())
    assert frame.data["finalText"] == "Let me see."
    frame, statuses = await tell(conversation, f"{ADD}\n!said")
    assert (frame.event, frame.data["finalText"]) == ("complete", "5"), frame
    assert statuses == ["calling tools__add", "thinking"]
    assert frame.data["usage"] == {"inputTokens": 20, "outputTokens": 2, "totalTokens": 22}
    offered = {tool["function"]["name"]: tool for tool in world.provider.requests[0].body["tools"]}
    assert set(offered["tools__add"]["function"]["parameters"]["properties"]) == {"a", "b"}
    assert offered["tools__add"]["function"]["description"] == "The sum of two numbers."
    await _kill_workers(world)
    frame, _ = await tell(conversation, "!history")
    call, result, said = json.loads(frame.data["finalText"])[-4:-1]
    assert call["tool_calls"][0]["function"] == {"name": "tools__add", "arguments": '{"a": 2, "b": 3}'}
    assert (result["role"], result["content"], result["tool_call_id"]) == ("tool", "5", call["tool_calls"][0]["id"])
    assert (said["role"], said["content"]) == ("assistant", "5")


async def test_a_server_lives_from_turn_to_turn_and_sees_no_key(world: World) -> None:
    conversation = await world.open("tools")
    found = []
    for _ in range(2):
        frame, _ = await tell(conversation, "!tool tools__where {}\n!said")
        found.append(json.loads(frame.data["finalText"]))
    assert found[0]["pid"] == found[1]["pid"]
    assert KEY not in json.dumps(found)
    assert (found[0]["env"]["GIVEN"], found[0]["cwd"]) == ("for the tool", found[0]["env"]["WORKSPACE_DIR"])
    assert "WORKER_TOKEN" not in found[0]["env"]


async def test_what_goes_wrong_with_a_tool_is_for_the_model_to_read(world: World) -> None:
    conversation = await world.open("tools")
    for call, words in (
        ("tools__fail {}", "Error executing tool fail"),
        ("tools__nothing {}", "There is no tool `tools__nothing`."),
        ("tools__add [1", "The arguments are no JSON object."),
        ('tools__add {"a": "x"}', "valid"),
        ('tools__big {"chars": 60000}', "x\n[cut: 10000 characters more]"),
        ("tools__die {}", "The tool failed"),
        ('tools__add {"a": 1, "b": 1}', "2"),
    ):
        frame, _ = await tell(conversation, f"!tool {call}\n!said")
        assert frame.event == "complete", (call, frame)
        assert words in frame.data["finalText"], (call, frame.data["finalText"][-300:])


async def test_two_calls_in_one_answer_and_text_around_them(world: World) -> None:
    frame, statuses = await tell(await world.open("tools"), ADD.replace("!tool", "!tools") + "\n!say a b\n")
    assert (frame.event, frame.data["finalText"]) == ("complete", "a b")
    assert statuses == ["calling tools__add", "calling tools__add", "thinking"]


async def test_a_call_for_the_client_ends_the_turn_behind_the_agents_own(world: World) -> None:
    """A model may call both in one answer. Where a client's tool has a server's name, the server's gets another."""
    conversation = await world.open("tools")
    look = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
    taken = look | {"name": "tools__add"}
    script = f"!both look {{}} + {ADD.removeprefix('!tool ')}\n!said"
    message_id = await conversation.send(script, tools=[look])
    frame = await conversation.terminal_of(message_id)
    assert frame.event == "complete", frame
    [call] = frame.data["toolCalls"]
    assert (call["name"], call["arguments"], frame.data["finalText"]) == ("look", "{}", "")
    assert [tool["function"]["name"] for tool in world.provider.requests[-1].body["tools"]][-1] == "look"
    results = [{"toolCallId": call["id"], "content": "42"}]
    message_id = await conversation.send("42", toolResults=results, onlyResults=True, tools=[look])
    assert (await conversation.terminal_of(message_id)).data["finalText"] == "42"
    told = world.provider.requests[-1].body["messages"]
    assert [message["role"] for message in told] == ["system", "user", "assistant", "tool", "tool"]
    assert [message["content"] for message in told[-2:]] == ["5", "42"]
    frame = await conversation.terminal_of(await conversation.send("hi", tools=[taken], toolChoice="auto"))
    offered = [tool["function"]["name"] for tool in world.provider.requests[-1].body["tools"]]
    assert {"tools__add", "tools__add_2"} <= set(offered)


async def test_a_model_that_never_ends_is_ended(world: World) -> None:
    frame, _ = await tell(await world.open("tools"), "\n".join([ADD] * 5))
    assert (frame.event, frame.data["errorCode"]) == ("agent-error", "TOO_MANY_STEPS")
    assert len(world.provider.requests) == 4


async def test_a_message_steers_between_two_steps(world: World) -> None:
    conversation = await world.open("tools")
    message_id = await conversation.send("!slow 0.2 20")
    await world.asked("!slow 0.2 20")
    steer_id = await conversation.send("!say steered", onBusy="steer")
    frame = await conversation.terminal_of(message_id)
    assert frame.data["finalText"] == " ".join(f"w{n}" for n in range(20)) + "\n\nsteered"
    assert frame.data["processedMessageIds"] == [message_id, steer_id]
    frame, _ = await tell(conversation, "!history")
    sent = [message["content"] for message in json.loads(frame.data["finalText"])][2:-1]
    assert (sent[0][:5], sent[1:]) == ("w0 w1", ["!say steered", "steered"])


async def test_a_cancel_in_a_tool_is_at_once_and_ends_its_server(world: World, tmp_path: Path) -> None:
    conversation = await world.open("tools")
    message_id, pid = await _hang(world, conversation, tmp_path / "pid")
    with trio.fail_after(10):  # the grace for a worker that does not listen is 30 s
        answer = await conversation.client.call("POST", f"{conversation.path}/cancel", {"messageId": message_id})
        assert answer.status == 202
        assert (await conversation.terminal_of(message_id)).event == "cancelled"
    worker = world.worker_of(conversation)
    await until(lambda: not psutil.pid_exists(pid), "the server that hangs is gone", MCP_END_SECONDS)
    frame, _ = await tell(conversation, f"{ADD}\n!said")
    assert frame.data["finalText"] == "5"
    assert world.worker_of(conversation) == worker, "the worker outlives a cancel"


async def test_a_tool_that_hangs_is_ended_by_our_clock_with_its_server(world: World, tmp_path: Path) -> None:
    conversation = await world.open("quick-tools")
    message_id, pid = await _hang(world, conversation, tmp_path / "pid")
    frame = await conversation.terminal_of(message_id)
    assert (frame.event, frame.data["errorCode"]) == ("agent-error", "TOOL_TIMEOUT")
    await until(lambda: not psutil.pid_exists(pid), "the server that hangs is gone", MCP_END_SECONDS)


async def test_a_killed_worker_takes_its_servers_with_it(world: World, tmp_path: Path) -> None:
    conversation = await world.open("tools")
    message_id, pid = await _hang(world, conversation, tmp_path / "pid")
    os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
    frame = await conversation.terminal_of(message_id)
    assert (frame.event, frame.data["errorCode"]) == ("agent-error", "WORKER_CRASHED")
    await until(lambda: not psutil.pid_exists(pid), "the server that hangs is gone", MCP_END_SECONDS)


@pytest.mark.parametrize(
    ("agent", "code", "words"),
    [
        ("broken-tools", "TOOL_SERVER_FAILED", "`broken` was not ready within 1 s"),
        ("unknown-tools", "TOOL_SERVER_UNKNOWN", "`elsewhere`; its worker type has tools, broken"),
    ],
)
async def test_a_server_that_is_not_to_be_had(world: World, agent: str, code: str, words: str) -> None:
    frame, _ = await tell(await world.open(agent), "hi")
    assert (frame.event, frame.data["errorCode"]) == ("agent-error", code)
    assert words in frame.data["error"]


async def test_when_the_run_stops_no_server_stays(database_server: EmbeddedServer, template_database: str) -> None:
    with running(database_server, template_database, "lobu_openai_stops", start=False) as world:
        try:
            await world.run.start()
            async with world.provider.serving(world.port):
                frame, _ = await tell(await world.open("tools"), "!tool tools__where {}\n!said")
            pid = json.loads(frame.data["finalText"])["pid"]
            assert psutil.pid_exists(pid)
            assert await world.run.stop() == 0
            assert not psutil.pid_exists(pid)
            assert world.run.processes() == []
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                await world.run.kill_all()


@pytest.mark.skipif(bool(bwrap_missing()), reason=bwrap_missing())
async def test_in_a_sandbox_too(database_server: EmbeddedServer, template_database: str) -> None:
    with running(database_server, template_database, "lobu_openai_boxed", start=False, sandbox=True) as world:
        try:
            await world.run.start()
            async with world.provider.serving(world.port):
                frame, statuses = await tell(await world.open("sandboxed"), f"{ADD}\n!said")
            assert (frame.event, frame.data.get("finalText")) == ("complete", "5"), (frame, world.run.log())
            assert statuses == ["calling tools__add", "thinking"]
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                await world.run.kill_all()


async def _hang(world: World, conversation: Conversation, file: Path) -> tuple[str, int]:
    """Returns the message's id and the server's pid once the tool hangs."""
    message_id = await conversation.send(f'!tool tools__hang {{"file": "{file}"}}')
    await until(lambda: file.exists() and file.read_text(), "the tool runs")
    pid = int(file.read_text())
    assert str(MCP_SERVER) in psutil.Process(pid).cmdline()
    return message_id, pid


async def _kill_workers(world: World) -> None:
    pids = world.run.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not set(pids) & set(world.run.worker_pids()), "the workers are gone")
