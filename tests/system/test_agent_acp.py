"""The worker type `acp` behind a real `lobu run`, with an agent made with the official package.

Real agents: `make interop-agents`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from lobu_actors.store.embedded import EmbeddedServer
from tests.interop.agents.place import running
from tests.interop.agents.scenarios import SCENARIOS, Agent, Place, expect
from tests.system.sse_client import Frame

FAKE = Path(__file__).parents[1] / "workers" / "fake_acp.py"


def worker(name: str, *options: str, zygote: bool = False) -> str:
    command = ["python", "-m", "lobu_actors.agents.acp", "--", sys.executable, str(FAKE), *options]
    return f"[workers.{name}]\ncommand = {json.dumps(command)}\nzygote = {json.dumps(zygote)}\n"


def agent(name: str, worker: str, more: str = "deadlines = { startup_seconds = 60 }") -> str:
    return f'[[agents]]\nid = "{name}"\nworker = "{worker}"\ndefault = {json.dumps(name == "acp")}\n{more}\n'


LAUNCHED = ["python", "-m", "lobu_actors.agents.acp", "--", "sh", "-c", f"'{sys.executable}' '{FAKE}'; exit"]
CONFIG = "".join(
    (
        worker("acp", zygote=True),
        *(worker(name, f"--{name}") for name in ("forgetful", "locked", "broken")),
        f"[workers.launched]\ncommand = {json.dumps(LAUNCHED)}\n",
        agent("launched", "launched"),
        agent("acp", "acp"),
        agent("quick", "acp", "deadlines = { first_output_seconds = 8, progress_seconds = 8, startup_seconds = 60 }"),
        *(agent(name, name) for name in ("forgetful", "locked", "broken")),
        agent("talks-of-failures", "acp", "settings = { failure_pattern = 'stream (was )?cut' }"),
        agent("pattern", "acp", "settings = { failure_pattern = '(' }"),
        agent("wrong", "acp", "settings = { mcp = ['elsewhere'] }"),
    )
)


@pytest.fixture(scope="module")
def place(database_server: EmbeddedServer, template_database: str) -> Iterator[Place]:
    asks_for = "!ask echo from-the-$((40+2))"
    acp = Agent("acp", quick="quick", asks_for=asks_for, remembers_killed=True)
    with running(database_server, template_database, "lobu_agent_acp", CONFIG) as run:
        yield Place(run, acp)
        assert "executed, not forked" not in run.errors(), "its imports do not keep it from being a zygote"


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(place: Place, name: str) -> None:
    await SCENARIOS[name](place)


@pytest.mark.parametrize("name", ["worker killed in a reply", "agent killed in a reply"])
async def test_an_agent_that_cannot_load_is_told_what_was_said(place: Place, name: str) -> None:
    await SCENARIOS[name](Place(place.run, attrs.evolve(place.agent, name="forgetful", remembers_killed=False)))


async def test_an_agent_whose_files_are_elsewhere_is_told_what_was_said(place: Place) -> None:
    async with place.talk() as talk:
        expect(await talk.ask("!say something-rare"), "complete")
        await talk.ask("!exit 1")
        for folder in place.run.folder.glob(".lobu/**/.fake"):
            shutil.rmtree(folder)
        expect(await talk.ask("!seen something-rare"), "complete", "seen")
        expect(await talk.ask("!seen User: !say something-rare"), "complete", "seen")


def code_of(frame: Frame) -> tuple[str, str | None]:
    return frame.event, frame.data.get("errorCode")


async def test_the_end_of_a_launcher_is_the_agents_end(place: Place) -> None:
    """qwen-code is started by one: what it started has its pipes, and would go on unseen."""
    await SCENARIOS["agent killed in a reply"](attrs.evolve(place, agent=attrs.evolve(place.agent, name="launched")))


async def test_an_end_that_is_no_reply(place: Place) -> None:
    async with place.talk() as talk:
        for message, code in (
            ("!stop refusal Error: 401 Incorrect API key", "PROVIDER_AUTH"),
            ("!stop refusal I will not do that.", "PROVIDER_REFUSED"),
            ("!stop max_turn_requests", "TOO_MANY_STEPS"),
            ("!stop end_turn", "AGENT_EMPTY_REPLY"),
            ("!stop cancelled", "WORKER_FAILED"),
            ("!exit 0", "WORKER_CRASHED"),
        ):
            assert code_of(await talk.ask(message)) == ("agent-error", code)


async def test_a_failure_that_is_told_as_a_reply(place: Place) -> None:
    async with place.run_talk("talks-of-failures") as talk:
        assert code_of(await talk.ask("!say half a text and stream cut: 503")) == (
            "agent-error",
            "PROVIDER_UNAVAILABLE",
        )
        expect(await talk.ask("!say stream cut" + " and more" * 100), "complete")


async def test_a_reply_that_was_cut_off_by_its_length_is_one(place: Place) -> None:
    async with place.talk() as talk:
        expect(await talk.ask("!stop max_tokens half"), "complete", "half")


async def test_a_cancel_while_it_asks_tells_the_agent(place: Place) -> None:
    async with place.talk() as talk:
        message_id = await talk.conversation.send("!ask echo ran\n!said")
        asked = await talk.question(message_id)
        assert asked.data["options"] == ["Allow", "Allow (2)", "Reject"]
        assert asked.data["prompt"] == "May the agent go on? run a command\n\necho ran"
        await talk.cancel(message_id)
        expect(await talk.end_of(message_id), "cancelled")
        expect(await talk.ask("!say after-it"), "complete", "after-it")


async def test_only_what_was_offered_is_consent(place: Place) -> None:
    async with place.talk() as talk:
        message_id = await talk.conversation.send("!ask echo ran\n!said")
        await talk.answer(await talk.question(message_id), "sure")
        expect(await talk.end_of(message_id), "complete", "refused")


async def test_text_around_a_tool_has_a_gap_and_the_agent_has_no_token_of_ours(place: Place) -> None:
    async with place.talk() as talk:
        frame = await talk.ask('!tool bash {"command": "echo"}\n!where')
        found = json.loads(frame.data["finalText"])
        assert found["cwd"] == found["env"]["HOME"] == found["env"]["WORKSPACE_DIR"]
        assert not {"WORKER_TOKEN", "LOBU_WORKER_FD", "DISPATCHER_URL"} & set(found["env"])
        assert frame.data["usage"] == {
            "inputTokens": 10, "outputTokens": 2, "totalTokens": 15, "cachedInputTokens": 3,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "code"),
    [
        ("pattern", "AGENT_SETTINGS_INVALID"),
        ("broken", "AGENT_NOT_STARTED"),
        ("locked", "PROVIDER_AUTH"),
        ("wrong", "TOOL_SERVER_UNKNOWN"),
    ],
)
async def test_what_cannot_be_started_says_so(place: Place, agent: str, code: str) -> None:
    async with place.run_talk(agent) as talk:
        assert code_of(await talk.ask("hello")) == ("agent-error", code)
