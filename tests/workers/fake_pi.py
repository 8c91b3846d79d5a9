"""A stand-in for the pi coding agent in RPC mode, for tests that run without it: same protocol, same bad manners.

Like pi it writes the session file late for the first answer and at once afterwards, glues to a torn line, runs shell
commands in sessions of their own which outlive it, retries what failed, keeps what it is steered with, and ends with
exit 0 and without a word when its stdin ends. What it says stands in the message, a command a line (see `Pi.step`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]
NEW = "The new message:\n\n"  # behind it is the user's own


class Session:
    """The file; only written once there is an answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Json] = []
        self.flushed = path.exists()
        if self.flushed:
            text = path.read_text()
            self.entries = [json.loads(line) for line in text.split("\n") if line]
            cwd = self.entries[0]["cwd"]
            if not os.path.isdir(cwd):
                raise SystemExit(f"Stored session working directory does not exist: {cwd}")
            os.chdir(cwd)
        else:
            self.entries = [{"type": "session", "version": 3, "id": os.urandom(8).hex(), "cwd": os.getcwd()}]
        self._number = len(self.entries)

    def add(self, message: Json) -> None:
        self._number += 1
        parent = self.entries[-1]["id"] if len(self.entries) > 1 else None
        entry = {"type": "message", "id": f"e{self._number}", "parentId": parent, "message": message}
        self.entries.append(entry)
        if self.flushed:
            self._append([entry])
        elif message["role"] == "assistant":
            self.flushed = True
            self._append(self.entries)

    def _append(self, entries: list[Json]) -> None:
        with self.path.open("a") as file:
            file.write("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries))


class Aborted(Exception):
    """By the command `abort`."""


class Pi:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.steering: list[str] = []
        self.steered = asyncio.Event()
        self.waiting: dict[str, asyncio.Future[Json]] = {}
        self.run: asyncio.Task[None] | None = None
        self.shell: asyncio.subprocess.Process | None = None

    def say(self, **event: Any) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    async def serve(self) -> None:
        reader = asyncio.StreamReader(limit=1 << 24)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            await self.command(json.loads(line))
        os._exit(0)

    async def command(self, command: Json) -> None:
        kind, answer = command["type"], {"type": "response", "command": command["type"], "success": True}
        if "id" in command:
            answer["id"] = command["id"]
        if kind == "extension_ui_response":
            self.waiting.pop(command["id"]).set_result(command)
            return
        if kind == "prompt" and command["message"].startswith("!refuse"):
            self.say(**answer | {"success": False, "error": command["message"][8:]})
            return
        if kind == "prompt" and not command["message"].startswith("/handled"):
            self.run = asyncio.create_task(self.prompt(command["message"]))
        elif kind == "steer":
            self.steering.append(command["message"])
            self.steered.set()
        elif kind == "clear_queue":
            answer["data"] = {"steering": self.steering, "followUp": []}
            self.steering = []
        elif kind == "get_state":
            answer["data"] = {"isStreaming": self.run is not None}
        elif kind == "abort" and self.run is not None:
            self.run.cancel()
            await asyncio.wait([self.run])
        self.say(**answer)

    async def prompt(self, text: str) -> None:
        self.say(type="agent_start")
        try:
            while True:
                self._message({"role": "user", "content": [{"type": "text", "text": text}]})
                for line in [*text.rpartition(NEW)[2].split("\n"), "!say done"]:
                    if await self.step(line):
                        break
                if not self.steering or text.startswith("!deaf"):
                    break
                text = self.steering.pop(0)
                self.steered.clear()
        except asyncio.CancelledError:
            if self.shell is not None:
                os.killpg(self.shell.pid, 9)
            self._assistant("", stop="aborted", error="Request aborted")
        self.say(type="agent_end", willRetry=False)
        self.run = None
        self.say(type="agent_settled")

    async def step(self, line: str) -> bool:
        """Whether the turn is over with it."""
        verb, _, rest = line.partition(" ")
        words = rest.split()
        if verb == "!tool":
            await self.bash(json.loads(rest.partition(" ")[2])["command"])
            return False
        if verb == "!ask":
            await self.ask(words[0], rest.partition(" ")[2])
            return False
        if verb == "!give-up":  # a question with a time limit of pi's own
            self.say(type="extension_ui_request", id="g", method="confirm", title="Quickly?", timeout=10)
            return False
        if verb == "!status":
            self._assistant("", stop="error", error=f'{words[0]}: {{"type": "{(words[1:] or ["x"])[0]}"}}')
        elif verb == "!once":
            self._assistant("", stop="error", error=f"{words[0]}: {{}}")
            self.say(type="auto_retry_start", attempt=1, maxAttempts=3, delayMs=10, errorMessage=f"{words[0]}: {{}}")
            self._assistant("recovered")
        elif verb == "!cut":
            self._assistant(rest, stop="error", error="terminated")
            self.say(type="auto_retry_start", attempt=1, maxAttempts=3, delayMs=100_000, errorMessage="terminated")
            await asyncio.sleep(100)
        elif verb == "!hang":
            await asyncio.sleep(1000)
        elif verb == "!exit":
            os._exit(int(words[0]))
        elif verb == "!slow":
            await self.slow(float(words[0]), int(words[1]))
        elif verb in ("!patient", "!deaf"):  # until it is steered; deaf: it settles without what it was steered with
            await self.slow(0.05, 1, self.steered)
        else:
            self._assistant(self.text_of(verb, rest))
        return True

    def text_of(self, verb: str, rest: str) -> str:
        earlier = [entry["message"] for entry in self.session.entries if entry["type"] == "message"]
        last = max(n for n, message in enumerate(earlier) if message["role"] == "user")
        if verb == "!said":
            return str(next(m["content"][0]["text"] for m in reversed(earlier) if m["role"] == "toolResult"))
        if verb == "!seen":
            around = earlier[last]["content"][0]["text"].rpartition(NEW)[0]
            return "seen" if rest in json.dumps([*earlier[:last], around]) else "not seen"
        if verb == "!history":
            return json.dumps([message for message in earlier[: last + 1] if message["role"] in ("user", "assistant")])
        return rest if verb == "!say" else f"{verb} {rest}".strip()

    async def slow(self, seconds: float, words: int, enough: asyncio.Event | None = None) -> None:
        self.say(type="message_start", message={"role": "assistant", "content": []})
        said = ""
        for number in range(words):
            word = f" w{number}" if number else "w0"
            said += word
            self.say(type="message_update", assistantMessageEvent={"type": "text_delta", "delta": word})
            await asyncio.sleep(seconds)
        if enough is not None:
            await enough.wait()
        self._end(said, "stop", "")

    async def bash(self, command: str) -> None:
        call = {"type": "toolCall", "id": "c", "name": "bash", "arguments": {"command": command}}
        self._message({"role": "assistant", "content": [call], "stopReason": "toolUse", "usage": {"totalTokens": 11}})
        self.say(type="tool_execution_start", toolCallId="c", toolName="bash", args={"command": command})
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", command, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        self.shell = shell
        said, _ = await shell.communicate()
        self.shell = None
        self._result(said.decode())

    async def ask(self, method: str, command: str) -> None:
        """Before a command; with `confirm` or `select`."""
        self._message({"role": "assistant", "content": [], "stopReason": "toolUse"})
        request = os.urandom(4).hex()
        self.waiting[request] = asyncio.get_running_loop().create_future()
        options = {"options": ["Allow", "Block"]} if method == "select" else {}
        self.say(type="extension_ui_request", id=request, method=method, title="Run it?", message=command, **options)
        self.say(type="extension_ui_request", id="n", method="notify", message="It asks.")
        answer = await self.waiting[request]
        if answer.get("confirmed") or answer.get("value") not in (None, "Block"):
            await self.bash(command)
        else:
            self._result("refused")

    def _result(self, text: str) -> None:
        self.say(type="tool_execution_end", toolCallId="c", toolName="bash", isError=False)
        self._message({"role": "toolResult", "toolCallId": "c", "content": [{"type": "text", "text": text}]})

    def _assistant(self, text: str, stop: str = "stop", error: str = "") -> None:
        self.say(type="message_start", message={"role": "assistant", "content": []})
        self.say(type="message_update", assistantMessageEvent={"type": "thinking_delta", "delta": "hm"})
        if text:
            self.say(type="message_update", assistantMessageEvent={"type": "text_delta", "delta": text})
        self._end(text, stop, error)

    def _end(self, text: str, stop: str, error: str) -> None:
        content = [{"type": "text", "text": text}]
        usage = {"input": 10, "output": 2, "cacheRead": 3, "totalTokens": 15}
        message = {"role": "assistant", "content": content, "stopReason": stop, "errorMessage": error, "usage": usage}
        self.session.add(message)
        self.say(type="message_end", message=message)

    def _message(self, message: Json) -> None:
        self.say(type="message_start", message=message)
        self.session.add(message | {"timestamp": int(time.time() * 1000)})
        self.say(type="message_end", message=message)


if __name__ == "__main__":
    if "--broken" in sys.argv:
        raise SystemExit("no models.json")
    print("a line that is no JSON", flush=True)
    asyncio.run(Pi(Session(Path(sys.argv[sys.argv.index("--session") + 1]))).serve())
