"""What every agent must do behind lobu, whoever made it: one function a scenario, which raises or gives a note.

Owns what counts as right: one terminal event always; never `complete` with half a text; the history there again when
the worker is not. A message is a script for what stands behind the agent: `tests/fakes/model_provider.py`, or a fake.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress

import attrs
import psutil
import trio

from tests.interop.agents.talk import SECONDS, Talk
from tests.system.lobu_process import LobuRun, until
from tests.system.sse_client import Client, Frame

LONG = "!slow 0.1 600"  # a reply of a minute
GONE_SECONDS = 15.0
CANCEL_SECONDS = 20.0


@attrs.frozen
class Agent:
    """An agent as the scenarios see it. `quick`: the same one with deadlines of a few seconds."""

    name: str
    version: str = ""
    quick: str = ""
    tool: str = '!tool bash {"command": {command}}'  # what makes it run a command in a shell; {command} as JSON text
    asks_for: str | None = None  # what makes it ask, when not each tool does
    asks: bool = True  # before it runs some commands
    drives: bool = True  # its worker drives a program
    is_silent: bool = False  # it may say nothing at all when its provider refuses
    provider_codes: tuple[str, ...] = ()  # further codes that a failure of the provider may have
    patience_seconds: float = SECONDS
    goes_on: bool = False  # it has its model go on where an answer was cut
    remembers_killed: bool = False  # it knows of a turn in which it was killed, as far as its own files have it


@attrs.frozen
class Place:
    """Where an agent runs."""

    run: LobuRun
    agent: Agent

    @property
    def client(self) -> Client:
        return Client(self.run.url, self.run.admin_key)

    def talk(self, *, quick: bool = False) -> AbstractAsyncContextManager[Talk]:
        return self.run_talk(self.agent.quick if quick else self.agent.name)

    def run_talk(self, agent: str) -> AbstractAsyncContextManager[Talk]:
        return Talk.opened(self.client, agent, patience_seconds=self.agent.patience_seconds, forceNew=True)

    def tool(self, command: str) -> str:
        return self.agent.tool.replace("{command}", '"' + command.replace('"', '\\"') + '"')


Scenario = Callable[[Place], Awaitable[str]]


async def reply(place: Place) -> str:
    """That it comes piece by piece is seen by `cancel`, whose reply is too long to have come whole."""
    async with place.talk() as talk:
        message_id = await talk.conversation.send("!slow 0.05 20")
        frame = await talk.end_of(message_id)
        words = " ".join(f"w{number}" for number in range(20))
        expect(frame, "complete", words)
        assert talk.transcript.texts[message_id] == frame.data["finalText"]
        expect(await talk.ask("!seen w7"), "complete", "seen")
        expect(await talk.ask("!seen nothing-of-this"), "complete", "not seen")
        usage = frame.data.get("usage")
    return f"usage: {', '.join(usage)}" if usage else "no usage"


async def carried(place: Place) -> str:
    """Of a client that was elsewhere before, and has something to say of how to reply."""
    said = [{"role": "user", "content": "it is xylophone"}, {"role": "assistant", "content": "I see"}]
    async with place.talk() as talk:
        expect(await talk.ask("!seen xylophone", history=said, instructions="like-a-pirate"), "complete", "seen")
        expect(await talk.ask("!seen like-a-pirate", instructions="like-a-pirate"), "complete", "seen")
        expect(await talk.ask("!seen in-verse", instructions="in-verse"), "complete", "seen")
    return ""


async def tool(place: Place) -> str:
    async with place.talk() as talk:
        message_id = await talk.conversation.send(place.tool("touch made && echo from-the-$((40+2))") + "\n!said")
        await talk.consent_until(message_id, lambda: False)
        expect(await talk.end_of(message_id), "complete", "from-the-42")
        phases = [phase for _, phase in talk.statuses(message_id)]
        assert "tool" in phases, talk.statuses(message_id)
    return next(status for status, phase in talk.statuses(message_id) if phase == "tool")


async def question(place: Place) -> str:
    agent = place.agent
    asks_for = agent.asks_for if agent.asks_for is not None else place.tool("touch made && echo from-the-$((40+2))")
    async with place.talk() as talk:
        message_id = await talk.conversation.send(asks_for + "\n!said")
        asked = await talk.question(message_id)
        await talk.consent(asked)
        expect(await talk.end_of(message_id), "complete", "from-the-42")
        refused = asks_for.replace("echo from", "printf %s not-from")  # what was allowed once may be allowed for ever
        message_id = await talk.conversation.send(refused + "\n!said")
        await talk.question(message_id)
        await talk.consent_until(message_id, lambda: False, refuse=True)
        frame = await talk.end_of(message_id)
        assert "from-the-42" not in str(frame.data.get("finalText")), "a tool that was refused has run"
    return f"{asked.data['prompt'][:60]!r}: {asked.data.get('options')}; refused: {frame.event}"


async def cancel(place: Place) -> str:
    async with place.talk() as talk:
        message_id = await talk.conversation.send(LONG)
        await talk.text_of(message_id, "w5")
        started = trio.current_time()
        await talk.cancel(message_id)
        expect(await talk.end_of(message_id, CANCEL_SECONDS), "cancelled")
        took = trio.current_time() - started
        expect(await talk.ask("!say after-it"), "complete", "after-it")
    return f"cancelled after {took:.1f} s"


async def cancel_while_it_asks(place: Place) -> str:
    agent = place.agent
    asks_for = agent.asks_for if agent.asks_for is not None else place.tool("touch made && echo from-the-$((40+2))")
    async with place.talk() as talk:
        message_id = await talk.conversation.send(asks_for + "\n!said")
        await talk.question(message_id)
        started = trio.current_time()
        await talk.cancel(message_id)
        expect(await talk.end_of(message_id, CANCEL_SECONDS), "cancelled")
        took = trio.current_time() - started
        expect(await talk.ask("!say after-it"), "complete", "after-it")
    return f"cancelled after {took:.1f} s"


async def cancel_in_tool(place: Place) -> str:
    async with place.talk() as talk:
        marker = f"3{os.getpid() % 1000:03d}.{id(talk) % 1000:03d}"
        message_id = await talk.conversation.send(place.tool(f"true && sleep {marker}") + "\n!said")
        await talk.consent_until(message_id, lambda: sleeping(marker))
        assert sleeping(marker), "the tool does not run"
        await talk.cancel(message_id)
        expect(await talk.end_of(message_id, CANCEL_SECONDS), "cancelled")
        await until(lambda: not sleeping(marker), "the tool's process is gone", GONE_SECONDS)
    return ""


async def provider_auth(place: Place) -> str:
    return await _provider_fails(place, "!status 401 invalid_api_key", "PROVIDER_AUTH")


async def provider_quota(place: Place) -> str:
    return await _provider_fails(place, "!status 429 insufficient_quota", "PROVIDER_QUOTA")


async def provider_away_once(place: Place) -> str:
    async with place.talk() as talk:
        expect(await talk.ask("!once 503"), "complete", "recovered")
    return ""


async def provider_cut(place: Place) -> str:
    if not place.agent.goes_on:
        return await _provider_fails(place, "!cut half a text", "PROVIDER_UNAVAILABLE")
    async with place.talk() as talk:
        expect(await talk.ask("!cut half a text"), "complete", "half a text done")
    return "THE_MODEL_GOES_ON"


async def provider_hangs(place: Place) -> str:
    async with place.talk(quick=True) as talk:
        expect(await talk.ask("!say hello"), "complete", "hello")
        frame = await talk.ask("!hang")
        assert frame.event == "agent-error", frame
        assert frame.data["errorCode"] in ("FIRST_OUTPUT_TIMEOUT", "NO_PROGRESS"), frame
        expect(await talk.ask("!say after-it"), "complete", "after-it")
    return str(frame.data["errorCode"])


async def server_killed(place: Place) -> str:
    """The next server adopts the worker; the reply goes on in its first attempt, and a client that came back has it."""
    async with place.talk() as talk:
        message_id = await talk.conversation.send("!slow 0.1 80")
        await talk.text_of(message_id, "w5")
        await place.run.kill_main()
        await place.run.start()
        frame = await talk.end_of(message_id)
        expect(frame, "complete", " ".join(f"w{number}" for number in range(80)))
        assert talk.transcript.texts[message_id] == frame.data["finalText"]
        assert not [frame for frame in talk.transcript.frames if frame.event == "restart"], "it was begun again"
        expect(await talk.ask("!seen w79"), "complete", "seen")
    return f"{talk.transcript.connections} connections"


async def worker_killed(place: Place) -> str:
    """And what it had begun; the next message finds the history of before."""
    return await _killed(place, worker=True)


async def agent_killed(place: Place) -> str:
    """The program that the worker drives."""
    return await _killed(place, worker=False)


async def _provider_fails(place: Place, command: str, code: str) -> str:
    async with place.talk(quick=place.agent.is_silent) as talk:
        frame = await talk.ask(command)
        assert frame.event == "agent-error", f"the provider failed, and the client is told {frame}"
        assert frame.data["errorCode"] in (code, *place.agent.provider_codes), frame
        expect(await talk.ask("!say after-it"), "complete", "after-it")
    return str(frame.data["errorCode"])


async def _killed(place: Place, *, worker: bool) -> str:
    async with place.talk() as talk:
        expect(await talk.ask("!say something-rare"), "complete", "something-rare")
        marker = f"4{os.getpid() % 1000:03d}.{id(talk) % 1000:03d}"
        before = set(place.run.worker_pids())
        message_id = await talk.conversation.send(place.tool(f"true && sleep {marker}") + "\n!said")
        await talk.consent_until(message_id, lambda: sleeping(marker))
        assert sleeping(marker), "the tool does not run"
        [leader] = [pid for pid in before if _is_above(pid, sleeping(marker)[0], place.run)]
        victims = [leader] if worker else [child.pid for child in psutil.Process(leader).children()]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        frame = await talk.end_of(message_id)
        assert (frame.event, frame.data["errorCode"]) == ("agent-error", "WORKER_CRASHED"), frame
        await until(lambda: not sleeping(marker), "the tool's process is gone", GONE_SECONDS)
        expect(await talk.ask("!seen something-rare"), "complete", "seen")
        frame = await talk.ask(f"!seen {marker}")
        expect(frame, "complete", "" if place.agent.remembers_killed else "not seen")
    return f"the killed turn is {'forgotten' if 'not seen' in frame.data['finalText'] else 'remembered'}"


def expect(frame: Frame, event: str, words: str = "") -> None:
    assert frame.event == event, frame
    if words:
        assert words in frame.data["finalText"], frame
    if words == "seen":
        assert "not seen" not in frame.data["finalText"], frame


def sleeping(marker: str) -> list[int]:
    """The processes that sleep so long."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [])[:2] == ["sleep", marker]:
            found.append(process.pid)
    return found


def _is_above(worker: int, pid: int, run: LobuRun) -> bool:
    """By the worker's id in the environment, since a shell may have changed parents and sessions."""
    mark = _worker_id(worker)
    return mark is not None and _worker_id(pid) == mark


def _worker_id(pid: int) -> str | None:
    with suppress(psutil.Error):
        return psutil.Process(pid).environ().get("LOBU_WORKER_ID")
    return None


SCENARIOS: dict[str, Scenario] = {
    "reply, streamed, remembered": reply,
    "what a client carries along": carried,
    "tool": tool,
    "question": question,
    "cancel": cancel,
    "cancel in a question": cancel_while_it_asks,
    "cancel in a tool": cancel_in_tool,
    "provider: 401": provider_auth,
    "provider: 429": provider_quota,
    "provider: 503 once": provider_away_once,
    "provider: cut in the middle": provider_cut,
    "provider: silence": provider_hangs,
    "worker killed in a reply": worker_killed,
    "agent killed in a reply": agent_killed,
}
SLOW_SCENARIOS: dict[str, Scenario] = {"server killed in a reply": server_killed}  # not for every test run
