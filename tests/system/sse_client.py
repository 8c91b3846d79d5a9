"""A strict reader of the HTTP interface on a bare trio socket: what it cannot follow exactly is a fault, never guessed.

`Client` asks, `EventStream` is one connection's frames, `Transcript` is everything that one reader was told over all of
its connections: it puts the text together and notes every id that comes twice, is left out or does not fit.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
import h11
import trio

Json = dict[str, Any]

TERMINALS = ("complete", "agent-error", "cancelled")
CALL_SECONDS = 60.0
RECEIVE_BYTES = 65536


class Broken(Exception):
    """The connection ended, or could not be made, before the answer was whole."""


@attrs.frozen
class Frame:
    event: str
    data: Json
    id: str | None = None


@attrs.frozen
class Answer:
    status: int
    body: Json


class _Http:
    """One HTTP/1.1 connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.state = h11.Connection(h11.CLIENT)

    @classmethod
    async def connect(cls, url: str) -> _Http:
        place = urlsplit(url)
        assert place.hostname is not None
        assert place.port is not None
        try:
            return cls(await trio.open_tcp_stream(place.hostname, place.port))
        except OSError as error:
            raise Broken(f"cannot connect: {error}") from error

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        every = [("Host", "test"), ("Content-Length", str(len(body))), *headers.items()]
        data = self.state.send(h11.Request(method=method, target=path, headers=every)) or b""
        data += (self.state.send(h11.Data(data=body)) or b"") if body else b""
        data += self.state.send(h11.EndOfMessage()) or b""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Broken("cut while sending") from error

    async def event(self) -> Any:
        while True:
            try:
                event = self.state.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self.state.receive_data(await self.stream.receive_some(RECEIVE_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as error:
                raise Broken(f"cut while receiving: {error}") from error

    async def head(self) -> h11.Response:
        event = await self.event()
        if not isinstance(event, h11.Response):
            raise Broken("closed before an answer")
        return event

    async def answer(self) -> Answer:
        head = await self.head()
        body = b""
        while isinstance(event := await self.event(), h11.Data):
            body += event.data
        return Answer(head.status_code, json.loads(body) if body else {})


class Client:
    """Calls with one key; with `keep` over one connection, which `close` ends."""

    def __init__(self, url: str, key: str, *, keep: bool = False) -> None:
        self.url = url
        self.key = key
        self._keep = keep
        self._kept: _Http | None = None

    async def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        """Raises Broken when there was no whole answer: what was asked may have happened."""
        http, self._kept = self._kept or await _Http.connect(self.url), None
        try:
            with trio.fail_after(CALL_SECONDS):
                await http.send(method, path, self._headers(body), b"" if body is None else json.dumps(body).encode())
                answer = await http.answer()
                http.state.start_next_cycle()
        except h11.LocalProtocolError:  # the server wants this connection closed
            await trio.aclose_forcefully(http.stream)
        except BaseException:
            await trio.aclose_forcefully(http.stream)
            raise
        else:
            if self._keep and self._kept is None:
                self._kept = http
            else:
                await trio.aclose_forcefully(http.stream)
        return answer

    async def close(self) -> None:
        if self._kept is not None:
            http, self._kept = self._kept, None
            await trio.aclose_forcefully(http.stream)

    async def text(self, path: str) -> str:
        """A plain answer, as of `/metrics`."""
        http = await _Http.connect(self.url)
        try:
            with trio.fail_after(CALL_SECONDS):
                await http.send("GET", path, {**self._headers(None), "Connection": "close"}, b"")
                await http.head()
                body = b""
                while isinstance(event := await http.event(), h11.Data):
                    body += event.data
                return body.decode()
        finally:
            await trio.aclose_forcefully(http.stream)

    async def open(self, **fields: object) -> Conversation:
        answer = await self.call("POST", "/api/v1/agents", {"userId": "ann", "forceNew": True, **fields})
        assert answer.status == 201, answer
        return Conversation(self, answer.body["agentId"])

    async def request_only(self, method: str, path: str, body: Json) -> None:
        """Send a whole request and cut the connection without waiting for the answer."""
        http = await _Http.connect(self.url)
        try:
            await http.send(method, path, self._headers(body), json.dumps(body).encode())
        finally:
            await trio.aclose_forcefully(http.stream)

    def _headers(self, body: Json | None) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.key}"}
        return headers if body is None else {**headers, "Content-Type": "application/json"}


@attrs.frozen
class Conversation:
    client: Client
    key: str

    @property
    def path(self) -> str:
        return f"/api/v1/agents/{quote(self.key)}"

    def through(self, client: Client) -> Conversation:
        return Conversation(client, self.key)

    async def post(self, content: str, message_id: str | None = None, **fields: object) -> Answer:
        body: Json = {"content": content, **({"messageId": message_id} if message_id else {}), **fields}
        return await self.client.call("POST", f"{self.path}/messages", body)

    async def send(self, content: str, message_id: str | None = None, **fields: object) -> str:
        """The message id of an accepted message."""
        answer = await self.post(content, message_id, **fields)
        assert answer.status == 200, answer
        return str(answer.body["messageId"])

    async def ask(self, content: str, seconds: float = 60.0) -> Frame:
        """Send, and follow to its terminal event, over as many connections as it takes."""
        message_id = await self.send(content)
        return await self.terminal_of(message_id, seconds)

    async def terminal_of(self, message_id: str, seconds: float = 60.0) -> Frame:
        transcript = Transcript()
        with trio.fail_after(seconds):
            await transcript.follow(self, lambda: message_id in transcript.terminals)
        assert not transcript.faults, transcript.faults
        return transcript.terminals[message_id]

    @asynccontextmanager
    async def events(
        self, *, last_event_id: str | None = None, since: str | None = None, message_id: str | None = None
    ) -> AsyncIterator[EventStream]:
        query = "&".join(f"{k}={quote(v)}" for k, v in (("since", since), ("messageId", message_id)) if v is not None)
        headers = {"Authorization": f"Bearer {self.client.key}", "Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        http = await _Http.connect(self.client.url)
        try:
            with trio.fail_after(CALL_SECONDS):
                await http.send("GET", f"{self.path}/events{'?' if query else ''}{query}", headers, b"")
                head = await http.head()
            yield EventStream(http, head.status_code)
        finally:
            await trio.aclose_forcefully(http.stream)


class EventStream:
    """The frames of one connection, in order. `ended` once the server has ended it cleanly."""

    def __init__(self, http: _Http, status: int) -> None:
        self.status = status
        self.ended = False
        self.http = http
        self._buffer = b""
        self._frames: deque[Frame] = deque()

    async def next(self) -> Frame | None:
        """The next frame; None at a clean end. Raises Broken."""
        while not self._frames:
            event = await self.http.event()
            if isinstance(event, h11.EndOfMessage):
                assert not self._buffer, f"ended in the middle of a frame: {self._buffer!r}"
                self.ended = True
                return None
            if not isinstance(event, h11.Data):
                raise Broken("closed in the middle of the stream")
            *whole, self._buffer = (self._buffer + bytes(event.data)).split(b"\n\n")
            self._frames.extend(frame for frame in map(_parse, whole) if frame is not None)
        return self._frames.popleft()

    async def next_of(self, *names: str) -> Frame:
        """The next frame with one of these names."""
        while (frame := await self.next()) is not None:
            if frame.event in names:
                return frame
        raise AssertionError(f"the stream ended before any of {names}")


def _parse(block: bytes) -> Frame | None:
    """One frame; None for a comment. The strictness is the promise that readers are given."""
    fields: dict[str, str] = {}
    for line in block.decode().split("\n"):
        if line.startswith(":"):
            continue
        name, separator, value = line.partition(": ")
        assert separator, f"no field: {line!r}"
        assert name not in fields, f"{name} twice in one frame"
        fields[name] = value
    if not fields:
        return None
    assert "data" in fields, f"a frame without data: {block!r}"
    assert "event" in fields, f"a frame without a name: {block!r}"
    return Frame(fields["event"], json.loads(fields["data"]), fields.get("id"))


class Transcript:
    """What one reader knows. `faults` are sentences about what should not have been sent."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.last_id: str | None = None
        self.seq: int | None = None
        self.texts: dict[str, str] = {}
        self.terminals: dict[str, Frame] = {}
        self.faults: list[str] = []
        self.connections = 0
        self._attempts: dict[str, int] = {}
        self._gap = False
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Until the next frame."""
        await self._changed.wait()

    async def follow(self, conversation: Conversation, enough: Callable[[], object]) -> None:
        """Read, and resume whenever the connection ends, until `enough()`."""
        while not enough():
            try:
                async with conversation.events(last_event_id=self.last_id) as stream:
                    # 429: streams that this reader has broken off are not known to be over yet.
                    if stream.status in (429, 503):
                        raise Broken("not now")
                    assert stream.status == 200, stream.status
                    self.connections += 1
                    while not enough() and (frame := await stream.next()) is not None:
                        self.take(frame)
            except Broken:
                await trio.sleep(0.02)

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)
        message_id = frame.data.get("messageId", "")
        if frame.event == "error":
            self._check_alias(frame)
        elif frame.event == "output":
            self._take_output(frame, message_id)
        elif frame.event == "gap":
            self._gap = True
        elif frame.id is not None:
            self._take_durable(frame)
        if frame.event == "restart":
            self.texts[message_id] = ""
            self._attempts[message_id] = frame.data["attempt"]
        elif frame.event in TERMINALS:
            self._take_terminal(frame, message_id)
        if frame.id is not None:
            self.last_id = frame.id
        self._changed.set()
        self._changed = trio.Event()

    def _take_durable(self, frame: Frame) -> None:
        # With an offset when it was read before the text that ran before it, which comes behind it or is over (ADR 21).
        seq = int((frame.id or "").split(".")[0])
        if not self._gap and self.seq is not None and seq != self.seq + 1:
            self.faults.append(f"{frame.event} has seq {seq} right behind {self.seq}")
        self.seq, self._gap = seq, False

    def _take_output(self, frame: Frame, message_id: str) -> None:
        seq, attempt, offset = map(int, (frame.id or "").split("."))
        if self._attempts.setdefault(message_id, attempt) != attempt:
            self.faults.append(f"output of attempt {attempt} in the middle of {self._attempts[message_id]}")
        text = self.texts[message_id] = self.texts.get(message_id, "") + frame.data["content"]
        if len(text) != offset:
            self.faults.append(f"output to offset {offset}, but {len(text)} characters are here")
        if self.seq is not None and seq != self.seq:
            self.faults.append(f"output behind seq {seq}, but {self.seq} was the last")
        if message_id in self.terminals:
            self.faults.append(f"output of {message_id} after its terminal event")
        self.seq = seq

    def _take_terminal(self, frame: Frame, message_id: str) -> None:
        if message_id in self.terminals:
            self.faults.append(f"a second terminal event, {frame.event}, for {message_id}")
        self.terminals[message_id] = frame
        text = self.texts.get(message_id, "")
        if frame.event == "complete" and not frame.data["finalText"].startswith(text):
            self.faults.append(f"the text of {message_id} is not how its finalText begins")

    def _check_alias(self, frame: Frame) -> None:
        before = self.frames[-2] if len(self.frames) > 1 else None
        if before is None or before.event != "agent-error" or (before.id, before.data) != (frame.id, frame.data):
            self.faults.append("`error` without the same `agent-error` right before it")
