"""A model provider that thinks of nothing: the streaming dialect of `/v1/chat/completions`, and bad manners on command.

What it does stands in the last user message, a command a line; each request of that turn does the next one, so that a
message with two `!tool` lines and a text makes two calls and then answers. Behind the last command it says `done`.

- `!say TEXT`, or a line without `!`: answers with TEXT, a word a chunk; `!said`: with the last tool's result
- `!slow SECONDS WORDS`: a word each SECONDS; `!hang`: nothing, for ever; `!hang-after TEXT`: TEXT, and then nothing
- `!tool NAME JSON`: a tool call, its arguments in two pieces; `!tools NAME JSON`: the same call twice in one answer
- `!think SECONDS`: thoughts for so long, then `thought`
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

Json = dict[str, Any]
KEY = "sk-test-0123456789"
_READ_BYTES = 65_536


class Cut(Exception):
    """The connection ends in the middle."""


@attrs.define
class Request:
    body: Json
    headers: dict[str, str]
    command: str
    left: bool = False  # the client hung up before the answer was whole


class ModelProvider:
    """Keeps what it was asked. `key`: what it wants to see; None: nothing."""

    def __init__(self, key: str | None = KEY) -> None:
        self.url = ""
        self.key = key
        self.requests: list[Request] = []

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
                    await self._answer(_Reply(stream, connection), *asked)
                    if connection.our_state is h11.MUST_CLOSE:
                        break
                    connection.start_next_cycle()
        except* (trio.BrokenResourceError, h11.RemoteProtocolError, Cut):
            pass

    async def _answer(self, reply: _Reply, path: str, headers: dict[str, str], body: bytes) -> None:
        if path != "/v1/chat/completions":
            await reply.refuse(404, "not_found", f"no such path: {path}")
            return
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            await reply.refuse(401, "invalid_api_key", f"Incorrect API key: {headers.get('authorization')}")
            return
        request = Request(json.loads(body), headers, _command_of(json.loads(body)["messages"]))
        self.requests.append(request)
        if wrong := _fault_in(request.body["messages"]):
            await reply.refuse(400, "invalid_request_error", wrong)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, reply, request, nursery.cancel_scope)
            await self._do(reply, request)
            nursery.cancel_scope.cancel()
        if request.left:
            raise Cut

    async def _do(self, reply: _Reply, request: Request) -> None:
        verb, _, rest = request.command.partition(" ")
        words = rest.split()
        asked_before = sum(other.command == request.command for other in self.requests) > 1
        match verb:
            case "!status":
                headers = [("retry-after", words[2])] if len(words) > 2 else []
                await reply.refuse(int(words[0]), words[1] if len(words) > 1 else "made_up", "made up", headers)
            case "!once" | "!once-hang" if not asked_before:
                await reply.refuse(int(words[0]), "made_up", "made up", [("retry-after", word) for word in words[1:2]])
            case "!cut-once" if not asked_before:
                await reply.open()
                raise Cut
            case "!once" | "!cut-once":
                await reply.say("recovered")
            case "!html":
                await reply.send(200, "text/html", b"<p>welcome</p>")
            case "!hang" | "!once-hang":
                await trio.sleep_forever()
            case "!hang-after" | "!cut" | "!end" | "!error":
                await _stop_short(reply, verb, rest)
            case "!slow":
                await reply.say(" ".join(f"w{n}" for n in range(int(words[1]))), delay=float(words[0]))
            case "!tool" | "!tools":
                name, _, arguments = rest.partition(" ")
                await reply.call(name, arguments, times=1 if verb == "!tool" else 2)
            case "!think":
                await reply.think(float(words[0]))
            case "!filtered":
                await reply.finish("content_filter", 0)
            case _:
                await reply.say(_text(verb, rest, request))


async def _stop_short(reply: _Reply, verb: str, rest: str) -> None:
    code, _, text = rest.partition(" ") if verb == "!error" else ("", "", rest)
    for word in text.split():
        await reply.chunk({"content": word + " "})
    if verb == "!hang-after":
        await trio.sleep_forever()
    if verb == "!cut":
        raise Cut
    if verb == "!error":
        await reply.event({"error": {"message": "made up", "code": int(code) if code.isdecimal() else code}})
    await reply.end()


def _text(verb: str, rest: str, request: Request) -> str:
    messages = request.body["messages"]
    match verb:
        case "!say":
            return rest
        case "!said":
            return next(str(message["content"]) for message in reversed(messages) if message["role"] == "tool")
        case "!history":
            return json.dumps(messages)
        case "!body":
            return json.dumps({name: value for name, value in request.body.items() if name != "messages"})
        case "":
            return "done"
        case _:
            return f"{verb} {rest}".strip()


def _command_of(messages: list[Json]) -> str:
    at = max(index for index, message in enumerate(messages) if message["role"] == "user")
    lines = str(messages[at]["content"]).split("\n")
    step = sum(message["role"] == "assistant" for message in messages[at:])
    return lines[step] if step < len(lines) else ""


def _fault_in(messages: list[Json]) -> str | None:
    """Real providers refuse a call without its results right behind it, and a result without its call."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return "a tool message must follow a message with its call"
            waiting.remove(message["tool_call_id"])
        elif waiting:
            return f"no result for the calls {waiting}"
        waiting += [call["id"] for call in message.get("tool_calls", ())]
    return f"no result for the calls {waiting}" if waiting else None


async def _watch(reply: _Reply, request: Request, scope: trio.CancelScope) -> None:
    """Cancels the answer when the client hangs up; what else it sends is its next request."""
    data = b""
    with suppress(trio.BrokenResourceError):
        data = await reply.stream.receive_some(_READ_BYTES)
    reply.connection.receive_data(data)
    if not data and reply.connection.our_state is not h11.DONE:
        request.left = True
        scope.cancel()


@attrs.define
class _Reply:
    """One answer."""

    stream: trio.SocketStream
    connection: h11.Connection
    _open: bool = False
    _calls: int = 0

    async def send(self, status: int, kind: str, body: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        every = [("content-type", kind), ("content-length", str(len(body))), *(headers or [])]
        await self._put(h11.Response(status_code=status, headers=every), h11.Data(data=body), h11.EndOfMessage())

    async def refuse(self, status: int, code: str, message: str, headers: list[tuple[str, str]] | None = None) -> None:
        error = {"error": {"message": message, "type": code, "param": None, "code": code}}
        await self.send(status, "application/json", json.dumps(error).encode(), headers)

    async def open(self) -> None:
        if not self._open:
            self._open = True
            await self._put(h11.Response(status_code=200, headers=[("content-type", "text/event-stream")]))
            await self.chunk({"role": "assistant", "content": ""})

    async def chunk(self, delta: Json, finish_reason: str | None = None) -> None:
        await self.open()
        await self.event({"object": "chat.completion.chunk", "choices": [_choice(delta, finish_reason)], "usage": None})

    async def event(self, data: Json) -> None:
        await self._put(h11.Data(data=b"data: " + json.dumps(data).encode() + b"\n\n"))

    async def say(self, text: str, delay: float = 0.0) -> None:
        words = text.split(" ")
        for number, word in enumerate(words):
            await self.chunk({"content": word if number == 0 else " " + word})
            await trio.sleep(delay)
        await self.finish("stop", len(words))

    async def call(self, name: str, arguments: str, times: int) -> None:
        half = len(arguments) // 2
        for index in range(times):
            begin = {"index": index, "id": f"call-{index}", "type": "function", "function": {"name": name}}
            begin["function"]["arguments"] = arguments[:half]  # type: ignore[index]
            await self.chunk({"tool_calls": [begin]})
            await self.chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[half:]}}]})
        await self.finish("tool_calls", 1)

    async def think(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while True:
                await self.chunk({"reasoning_content": "hm "})
                await trio.sleep(0.05)
        await self.say("thought")

    async def finish(self, reason: str, tokens: int) -> None:
        await self.chunk({}, reason)
        usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
        await self.event({"object": "chat.completion.chunk", "choices": [], "usage": usage})
        await self._put(h11.Data(data=b"data: [DONE]\n\n"))
        await self.end()

    async def end(self) -> None:
        await self._put(h11.EndOfMessage())

    async def _put(self, *events: Any) -> None:
        await self.stream.send_all(b"".join(self.connection.send(event) or b"" for event in events))


def _choice(delta: Json, finish_reason: str | None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


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
