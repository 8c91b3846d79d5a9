"""`make pi-moves`: a conversation with the real pi that is moved from host to host by killing them, and is still whole.

Two `lobu run` on one Postgres. Each turn has pi run a command in its shell; after every few the host that has the
conversation is killed, with all that runs on it, in the middle of the next turn, and the other host goes on. In the end
the stored session is what it must be: a whole tree of one branch, each message once and answered, opened by pi itself.
Exits with 1 when it is not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import trio

from tests.conftest import admin
from tests.fakes.model_provider import ModelProvider
from tests.interop.agents import programs
from tests.interop.agents.programs import KEY, PROGRAMS, Program
from tests.interop.agents.scenarios import expect
from tests.system.audit import broken_promises
from tests.system.cluster import database, hosts
from tests.system.lobu_process import LobuRun, free_port
from tests.system.sse_client import Client, Conversation, Frame

TURN_SECONDS = 150.0
Json = dict[str, Any]


async def run(turns: int, every: int) -> None:
    home, port = Path(tempfile.mkdtemp(prefix="lobu-interop-")), free_port()
    program = PROGRAMS["pi"]()
    provider = ModelProvider(key=KEY)
    text = program.configuration(home, f"http://127.0.0.1:{port}/v1")
    try:
        async with provider.serving(port), database() as server, hosts(2, text, server.url) as pair:
            key, moves = await _talk(pair, turns, every)
            session = _stored(server.url, key)
            messages = check(session, turns)
            _check_with_pi(session, program, home, f"http://127.0.0.1:{port}/v1", messages)
            assert (broken := broken_promises(server.url)) == [], broken
            print(f"{turns} turns, {moves} moves, {len(session)} bytes: whole, and pi opens it")
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _talk(pair: list[LobuRun], turns: int, every: int) -> tuple[str, int]:
    """The conversation's key, and how often it was moved."""
    conversation = await Client(pair[0].url, pair[0].admin_key).open(agentId="pi")
    at, moves = 0, 0
    for number in range(turns):
        content = _message(number)
        through = conversation.through(Client(pair[at].url, pair[at].admin_key))
        message_id = await through.send(content)
        question = await _question(through, message_id)
        if number and number % every == 0:
            moves += 1
            print(f"turn {number}: the host that has the conversation is killed in it", flush=True)
            await pair[at].kill_all()
            at = 1 - at
            through = conversation.through(Client(pair[at].url, pair[at].admin_key))
            question = await _question(through, message_id, instead_of=question)
            await pair[1 - at].start()
        await _answer(through, question)
        expect(await through.terminal_of(message_id, TURN_SECONDS), "complete", f"result-{number}-of-7")
    return conversation.key, moves


def _message(number: int) -> str:
    command = json.dumps({"command": f"echo result-{number}-of-$((3+4))"})
    return f"!tool bash {command}\n!said"


async def _question(conversation: Conversation, message_id: str, instead_of: Frame | None = None) -> Frame:
    """The one that pi asks before it runs a command; the newest attempt's."""
    with trio.fail_after(TURN_SECONDS):
        async with conversation.events(since="0") as stream:
            while True:
                frame = await stream.next_of("question", "complete", "agent-error")
                if frame.data.get("messageId") != message_id:
                    continue
                assert frame.event == "question", frame
                if instead_of is None or frame.data["questionId"] != instead_of.data["questionId"]:
                    return frame


async def _answer(conversation: Conversation, question: Frame) -> None:
    path = f"{conversation.path}/questions/{question.data['questionId']}/answer"
    reply = await conversation.client.call("POST", path, {"answer": "yes"})
    assert reply.status == 200, reply


def _stored(database_url: str, key: str) -> bytes:
    rows = admin(
        database_url,
        f"SELECT base_length, data FROM transcript_segment WHERE conversation_id = '{key}' ORDER BY generation, seq",
    )
    session = b""
    for base, data in rows:
        assert isinstance(base, int)
        assert isinstance(data, bytes | memoryview)
        session = session[:base] + bytes(data)
    return session


def check(session: bytes, turns: int) -> list[Json]:
    """The messages of the one branch. AssertionError where the tree is not whole."""
    assert session.endswith(b"\n")
    header, *entries = [json.loads(line) for line in session.splitlines()]
    assert header["type"] == "session"
    parent = None
    for entry in entries:
        assert entry["parentId"] == parent, f"the tree forks or has a hole at {entry['id']}"
        parent = entry["id"]
    assert len({entry["id"] for entry in entries}) == len(entries)
    messages = [entry["message"] for entry in entries if entry["type"] == "message"]
    asked = [_text(message) for message in messages if message["role"] == "user"]
    assert asked == [_message(number) for number in range(turns)], "each message once, in order"
    results = [_text(message).strip() for message in messages if message["role"] == "toolResult"]
    assert results == [f"result-{number}-of-7" for number in range(turns)], "each command's result once"
    replies = [message for message in messages if message["role"] == "assistant" and message["stopReason"] == "stop"]
    assert len(replies) == turns
    return messages


def _text(message: Json) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _check_with_pi(session: bytes, program: Program, home: Path, url: str, messages: list[Json]) -> None:
    """pi itself opens it and has every message; and writes it out as a page, for which it reads the tree."""
    folder = home / "opened"
    folder.mkdir()
    file = folder / "session.jsonl"
    header, _, rest = session.partition(b"\n")
    file.write_bytes(json.dumps(json.loads(header) | {"cwd": str(folder)}).encode() + b"\n" + rest)
    command = list(program.worker[program.worker.index("--") + 1 :])
    environment = {name: program._filled(value, home, url) for name, value in program.environment.items()}
    asked = '{"id":"m","type":"get_messages"}\n{"id":"t","type":"get_tree"}\n'
    options = ["--mode", "rpc", "--session", str(file), "--provider", "local", "--model", "test-model"]
    done = subprocess.run(
        [*command, *options],
        input=asked, capture_output=True, text=True, timeout=120, cwd=folder,
        env={"PATH": "/usr/bin:/bin"} | environment,
    )  # fmt: skip
    answers = {answer.get("id"): answer for line in done.stdout.splitlines() if (answer := json.loads(line))}
    assert answers["m"]["success"], answers["m"]
    assert answers["t"]["success"], answers["t"]
    found = [message for message in answers["m"]["data"]["messages"] if message["role"] != "system"]
    expected = [message for message in messages if message["role"] != "system"]
    assert [(m["role"], _text(m)) for m in found] == [(m["role"], _text(m)) for m in expected]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make pi-moves", description="pi, moved between hosts by killing them.")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--every", type=int, default=5, help="turns between two kills")
    options = parser.parse_args()
    programs.install(["pi"])
    trio.run(run, options.turns, options.every)


if __name__ == "__main__":
    main()
