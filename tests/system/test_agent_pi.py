"""The worker type `pi` behind a real `lobu run`, with a program that speaks pi's RPC mode.

pi itself: `make interop-agents`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lobu_actors.store.embedded import EmbeddedServer
from tests.conftest import admin
from tests.interop.agents.place import running
from tests.interop.agents.scenarios import SCENARIOS, Agent, Place, expect
from tests.system.lobu_process import until

FAKE = Path(__file__).parents[1] / "workers" / "fake_pi.py"
QUICK = "{ first_output_seconds = 8, progress_seconds = 8, startup_seconds = 60 }"
CONFIG = f"""
[workers.pi]
command = ["python", "-m", "lobu_actors.agents.pi", "--", "{sys.executable}", "{FAKE}"]
[workers.broken]
command = ["python", "-m", "lobu_actors.agents.pi", "--", "{sys.executable}", "{FAKE}", "--broken"]
[[agents]]
id = "pi"
worker = "pi"
default = true
model = "local/test-model"
settings = {{ system_prompt = "Be brief." }}
deadlines = {{ startup_seconds = 60 }}
[[agents]]
id = "quick"
worker = "pi"
deadlines = {QUICK}
[[agents]]
id = "broken"
worker = "broken"
[[agents]]
id = "wrong"
worker = "pi"
settings = {{ tools = "bash" }}
[[agents]]
id = "again"
worker = "pi"
failure = {{ crash = "retry", max_attempts = 2, retry_backoff_seconds = 0.1 }}
"""


EACH_STORE = pytest.mark.parametrize("place", ["snapshot", "file"], indirect=True)  # of sessions


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, database_server: EmbeddedServer, template_database: str) -> Iterator[Place]:
    store = getattr(request, "param", "snapshot")
    environment = {"LOBU_SESSION_STORE": "file"} if store == "file" else {}
    name = f"lobu_agent_pi_{store}"
    with running(database_server, template_database, name, CONFIG, environment) as run:
        yield Place(run, Agent("pi", quick="quick", asks_for="!ask confirm echo from-the-$((40+2))"))


@pytest.mark.parametrize("name", [name for name in SCENARIOS if "killed" not in name])
async def test_scenario(place: Place, name: str) -> None:
    await SCENARIOS[name](place)


def session_files(place: Place) -> list[Path]:
    return sorted(place.run.folder.glob(".lobu/**/.openclaw/session.jsonl"), key=lambda path: path.stat().st_mtime_ns)


@EACH_STORE
@pytest.mark.parametrize("name", ["cancel", "worker killed in a reply", "agent killed in a reply"])
async def test_what_was_unanswered_is_not_remembered(place: Place, name: str) -> None:
    await SCENARIOS[name](place)


@EACH_STORE
async def test_the_snapshot_is_the_file_of_pi(place: Place) -> None:
    async with place.talk() as talk:
        expect(await talk.ask("!say one"), "complete", "one")
        [file] = [path for path in session_files(place) if "!say one" in path.read_text()]
        entries = [json.loads(line) for line in file.read_text().splitlines()]
        assert [entry["type"] for entry in entries] == ["session", "message", "message"]
        if "LOBU_SESSION_STORE" not in place.run.environment:
            stored = admin(
                place.run.database_url,
                "SELECT s.data FROM transcript_segment s JOIN conversation c USING (organization_id, conversation_id)"
                f" WHERE c.conversation_id = '{talk.conversation.key}'",
            )
            assert b"".join(bytes(data) for (data,) in stored) == file.read_bytes()


@EACH_STORE
async def test_the_first_reply_that_dies_leaves_no_file(place: Place) -> None:
    before = set(session_files(place))
    async with place.talk() as talk:
        frame = await talk.ask("!exit 0")
        assert (frame.event, frame.data["errorCode"]) == ("agent-error", "WORKER_CRASHED"), "exit 0 is no reply"
        assert set(session_files(place)) == before
        expect(await talk.ask("!seen exit"), "complete", "not seen")


@EACH_STORE
async def test_a_message_that_comes_again_is_not_doubled(place: Place) -> None:
    async with place.talk() as talk:
        expect(await talk.ask("!say first"), "complete", "first")
        frame = await talk.ask('!tool bash {"command": "echo x"}\n!exit 1')
        assert (frame.event, frame.data["errorCode"]) == ("agent-error", "WORKER_CRASHED")
        frame = await talk.ask("!history")
        assert [message["content"][0]["text"] for message in json.loads(frame.data["finalText"])] == [
            "!say first", "first", "!history",
        ]  # fmt: skip


@EACH_STORE
async def test_an_attempt_that_died_is_made_again(place: Place) -> None:
    async with place.run_talk("again") as talk:
        marker = place.run.folder / "died"
        frame = await talk.ask(
            f'!tool bash {{"command": "test -e {marker} || {{ touch {marker}; kill -9 $PPID; sleep 9; }}"}}\n!history'
        )
        assert frame.event == "complete", frame
        assert len(json.loads(frame.data["finalText"])) == 1, "the message of this attempt alone"
    marker.unlink()


async def test_what_is_added_is_read_between_steps(place: Place) -> None:
    async with place.talk() as talk:
        message_id = await talk.conversation.send("!patient")
        await talk.text_of(message_id, "w0")
        steer_id = await talk.conversation.send("!say steered", onBusy="steer")
        frame = await talk.end_of(message_id)
        assert frame.data["finalText"].endswith("w0\n\nsteered")
        assert frame.data["processedMessageIds"] == [message_id, steer_id]


async def test_what_is_added_too_late_is_a_message_of_its_own(place: Place) -> None:
    async with place.talk() as talk:
        message_id = await talk.conversation.send("!deaf")
        await talk.text_of(message_id, "w0")
        late_id = await talk.conversation.send("!history", onBusy="steer")
        frame = await talk.end_of(message_id)
        assert frame.data["finalText"].endswith("w0")
        assert frame.data["processedMessageIds"] == [message_id]
        late = await talk.end_of(late_id)
        assert (late.event, late.data["processedMessageIds"]) == ("complete", [late_id])
        told = [message["content"][0]["text"] for message in json.loads(late.data["finalText"])]
        assert (told[0], told[-1], len(told)) == ("!deaf", "!history", 3), "it was read once"


async def test_an_approval_by_a_list_and_what_counts_as_none(place: Place) -> None:
    async with place.talk() as talk:
        for answer, words in (("Allow", "ran"), ("Block", "refused"), ("allow", "refused")):
            message_id = await talk.conversation.send("!ask select echo ran\n!said")
            asked = await talk.question(message_id)
            assert asked.data["options"] == ["Allow", "Block"]
            await talk.answer(asked, answer)
            expect(await talk.end_of(message_id), "complete", words)
        assert "It asks." in [frame.data["content"] for frame in talk.transcript.frames if frame.event == "ephemeral"]


async def test_a_question_that_pi_gives_up_holds_nothing_up(place: Place) -> None:
    async with place.talk() as talk:
        expect(await talk.ask("!give-up\n!say went on"), "complete", "went on")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("!refuse No API key found for local.", "PROVIDER_AUTH"),
        ("!refuse No model selected.", "NO_MODEL_CONFIGURED"),
        ("!refuse Busy.", "AGENT_REFUSED"),
        ("!status 400 context_length_exceeded", "PROVIDER_REFUSED"),
    ],
)
async def test_what_pi_does_not_take(place: Place, message: str, code: str) -> None:
    async with place.talk() as talk:
        frame = await talk.ask(message)
        assert (frame.event, frame.data["errorCode"]) == ("agent-error", code)


async def test_a_command_of_pi_has_no_reply_and_ends(place: Place) -> None:
    async with place.talk() as talk:
        assert (await talk.ask("/handled")).event == "complete"


@pytest.mark.parametrize(("agent", "code"), [("broken", "AGENT_NOT_STARTED"), ("wrong", "AGENT_SETTINGS_INVALID")])
async def test_what_cannot_be_started_says_so(place: Place, agent: str, code: str) -> None:
    async with place.run_talk(agent) as talk:
        frame = await talk.ask("hello")
        assert (frame.event, frame.data["errorCode"]) == ("agent-error", code), frame
    if agent == "broken":  # what a worker prints comes another way than its frames
        await until(lambda: "no models.json" in place.run.errors(), "what it said is in the log")
