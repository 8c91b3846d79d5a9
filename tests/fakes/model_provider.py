"""A model provider that thinks of nothing: three streaming dialects (`provider_dialects`), and bad manners on command.

What it does stands in the last user message, a command a line; each request of that turn does the next one, so that a
message with two `!tool` lines and a text makes two calls and then answers. Behind the last command it says `done`.
What an agent puts around the message is passed over, up to the first line that begins with `!`; so are requests that an
agent makes for itself, as for a title, which have no tools where others have (`titles`).

- `!say TEXT`, or a line without `!`: answers with TEXT, a word a chunk; `!said`: with the last tool's result
- `!slow SECONDS WORDS`: a word each SECONDS; `!hang`: nothing, for ever; `!hang-after TEXT`: TEXT, and then nothing
- `!tool NAME JSON`: a tool call, its arguments in two pieces; `!tools NAME JSON`: the same call twice in one answer
- `!both NAME JSON + NAME JSON`: calls of two tools in one answer
- `!think SECONDS`: thoughts for so long, then `thought`
- `!seen WORD`: `seen` or `not seen`, in what the model was told before this message
- `!history`: answers with the messages that were sent, as JSON; `!body`: with the rest of the request
- `!status N [CODE] [RETRY_AFTER]`: that HTTP status; `!once N [RETRY_AFTER]`: that one, then `recovered`
- `!cut TEXT`: TEXT, and the connection is cut; `!end TEXT`: TEXT, and a clean end without finish or `[DONE]`
- `!cut-once`: cut before any text, then `recovered`; `!once-hang N`: that status, then nothing, for ever
- `!error CODE TEXT`: TEXT, and then an error in the stream; `!html`: a page instead of a stream
- `!filtered`: nothing, by a content filter

Every answer's usage is 10 tokens of prompt and one for each word. `python -m tests.fakes.model_provider PORT` runs it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import h11
import trio

from tests.fakes.provider_dialects import DIALECTS, Reply, turns_of

Json = dict[str, Any]
NEW = "The new message:\n\n"  # what our workers put between what they add and the user's words
KEY = "sk-test-0123456789"
SENTENCES = {
    "401": "Incorrect API key provided.",
    "429": "Rate limit reached for requests.",
    "503": "The engine is currently overloaded, please try again later.",
}
_READ_BYTES = 65_536


class Cut(Exception):
    """The connection ends in the middle."""


@attrs.define
class Request:
    body: Json
    headers: dict[str, str]
    turns: list[Json]
    command: str
    left: bool = False  # the client hung up before the answer was whole


class ModelProvider:
    """Keeps what it was asked. `key`: what it wants to see; None: nothing."""

    def __init__(self, key: str | None = KEY, *, titles: bool = True) -> None:
        self.url = ""
        self.key = key
        self._titles = titles
        self.requests: list[Request] = []
        self._has_agent = False  # who asks has tools

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[ModelProvider]:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._serve, port)
            self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
            yield self
            nursery.cancel_scope.cancel()

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            async with stream:
                while (asked := await _read(stream, connection)) is not None:
                    await self._answer(stream, connection, *asked)
                    if connection.our_state is h11.MUST_CLOSE:
                        break
                    connection.start_next_cycle()
        except* (trio.BrokenResourceError, h11.RemoteProtocolError, Cut):
            pass

    async def _answer(
        self, stream: trio.SocketStream, connection: h11.Connection, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        path = path.partition("?")[0]
        reply = DIALECTS.get(path, Reply)(stream, connection)
        if path not in DIALECTS:
            await reply.refuse(404, "not_found", f"no such path: {path}")
            return
        key = headers.get("authorization", f"Bearer {headers.get('x-api-key')}")
        if self.key is not None and key != f"Bearer {self.key}":
            await reply.refuse(401, "invalid_api_key", f"Incorrect API key: {key}")
            return
        wire = json.loads(body)
        turns = turns_of(path, wire)
        request = Request(wire, headers, turns, _command_of(turns))
        self.requests.append(request)
        if wire.get("tools"):
            self._has_agent = True
        elif self._has_agent and self._titles:
            request.command = "!say title"
        if wrong := _fault_in(turns):
            await reply.refuse(400, "invalid_request_error", wrong)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, reply, request, nursery.cancel_scope)
            await self._do(reply, request)
            nursery.cancel_scope.cancel()
        if request.left:
            raise Cut

    async def _do(self, reply: Reply, request: Request) -> None:
        verb, _, rest = request.command.partition(" ")
        words = rest.split()
        asked_before = sum(other.command == request.command for other in self.requests) > 1
        match verb:
            case "!status":
                headers = [("retry-after", words[2])] if len(words) > 2 else []
                await reply.refuse(int(words[0]), words[1] if len(words) > 1 else "made_up", _told(words), headers)
            case "!once" | "!once-hang" if not asked_before:
                headers = [("retry-after", word) for word in words[1:2]]
                await reply.refuse(int(words[0]), "made_up", _told(words[:1]), headers)
            case "!cut-once" if not asked_before:
                await reply.open()
                raise Cut
            case "!once" | "!cut-once":
                await _say(reply, "recovered")
            case "!html":
                await reply.send(200, "text/html", b"<p>welcome</p>")
            case "!hang" | "!once-hang":
                await trio.sleep_forever()
            case "!hang-after" | "!cut" | "!end" | "!error":
                await _stop_short(reply, verb, rest)
            case "!slow":
                await _say(reply, " ".join(f"w{n}" for n in range(int(words[1]))), delay=float(words[0]))
            case "!tool" | "!tools":
                await reply.call([_call(rest)] * (1 if verb == "!tool" else 2))
            case "!both":
                await reply.call([_call(part) for part in rest.split(" + ")])
            case "!think":
                await _think(reply, float(words[0]))
            case "!filtered":
                await reply.finish("content_filter", 0)
            case _:
                await _say(reply, _text(verb, rest, request))


def _told(words: list[str]) -> str:
    """What a provider says with a status, which some agents pass on without it."""
    if words[1:2] == ["insufficient_quota"]:
        return "You exceeded your current quota, please check your plan and billing details."
    return SENTENCES.get(words[0], "made up")


def _call(text: str) -> tuple[str, str]:
    name, _, arguments = text.partition(" ")
    return name, arguments


async def _say(reply: Reply, text: str, delay: float = 0.0) -> None:
    words = text.split(" ")
    for number, word in enumerate(words):
        await reply.text(word if number == 0 else " " + word)
        await trio.sleep(delay)
    await reply.finish("stop", len(words))


async def _think(reply: Reply, seconds: float) -> None:
    with trio.move_on_after(seconds):
        while True:
            await reply.thought("hm ")
            await trio.sleep(0.05)
    await _say(reply, "thought")


async def _stop_short(reply: Reply, verb: str, rest: str) -> None:
    code, _, text = rest.partition(" ") if verb == "!error" else ("", "", rest)
    await reply.open()
    for word in text.split():
        await reply.text(word + " ")
    if verb == "!hang-after":
        await trio.sleep_forever()
    if verb == "!cut":
        raise Cut
    if verb == "!error":
        await reply.fail(code)
    else:
        await reply.end()


def _text(verb: str, rest: str, request: Request) -> str:
    match verb:
        case "!say":
            return rest
        case "!said":
            return next("".join(turn["content"]) for turn in reversed(request.turns) if turn["role"] == "tool")
        case "!seen":
            at = _asked_at(request.turns)
            around = [text.rpartition(NEW)[0] for text in request.turns[at]["content"]]
            return "seen" if rest in json.dumps([request.turns[:at], around]) else "not seen"
        case "!history":
            return json.dumps(request.body["messages"])
        case "!body":
            return json.dumps({name: value for name, value in request.body.items() if name != "messages"})
        case "":
            return "done"
        case _:
            return f"{verb} {rest}".strip()


def _command_of(turns: list[Json]) -> str:
    at = _asked_at(turns)
    lines = _script_in(turns[at]) or "\n".join(turns[at]["content"][-1:]).split("\n")
    step = sum(turn["role"] == "assistant" and _is_step(turn) for turn in turns[at:])
    return lines[step] if step < len(lines) else ""


def _asked_at(turns: list[Json]) -> int:
    """The last message of the user with a command; where there is none, the last one at all."""
    said = [index for index, turn in enumerate(turns) if turn["role"] == "user"]
    return next((index for index in reversed(said) if _script_in(turns[index])), said[-1])


def _script_in(turn: Json) -> list[str]:
    """The lines from the first command on, of the newest message that the text has."""
    for text in reversed(turn["content"]):
        lines = text.rpartition(NEW)[2].split("\n")
        for number, line in enumerate(lines):
            if line.startswith("!"):
                return [line for line in lines[number:] if not line.startswith("<")]
    return []


def _is_step(turn: Json) -> bool:
    return bool(turn["calls"] or turn["content"])


def _fault_in(turns: list[Json]) -> str | None:
    """Real providers refuse a call without its results right behind it, and a result without its call."""
    waiting: list[str] = []
    for turn in turns:
        if turn["role"] == "tool":
            if turn["result_of"] not in waiting:
                return "a tool message must follow a message with its call"
            waiting.remove(turn["result_of"])
        elif waiting and not turn["calls"]:
            return f"no result for the calls {waiting}"
        waiting += turn["calls"]
    return f"no result for the calls {waiting}" if waiting else None


async def _watch(reply: Reply, request: Request, scope: trio.CancelScope) -> None:
    """Cancels the answer when the client hangs up; what else it sends is its next request."""
    data = b""
    with suppress(trio.BrokenResourceError):
        data = await reply.stream.receive_some(_READ_BYTES)
    reply.connection.receive_data(data)
    if not data and reply.connection.our_state is not h11.DONE:
        request.left = True
        scope.cancel()


async def _read(stream: trio.SocketStream, connection: h11.Connection) -> tuple[str, dict[str, str], bytes] | None:
    """A request's path, headers and body; None when the client is done."""
    path, headers, body = "", {}, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_READ_BYTES))
        elif isinstance(event, h11.Request):
            path = event.target.decode()
            headers = {name.decode().lower(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return path, headers, body
        else:
            return None


async def main(port: int) -> None:
    async with ModelProvider(key=None).serving(port) as provider:
        print(provider.url, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 0)
