"""A server that behaves as the Bot API documents, for one bot: updates that are kept until they are confirmed by an
offset, long polls of which the second ends the first with 409, messages of at most 4096 UTF-16 units, errors on demand.

It also keeps the record that a test needs: who polled when, what was sent where, and whether two polls ever overlapped.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import h11
import trio

TOKEN = "110201543:" + "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"
BOT_ID = 110201543
BOT_NAME = "lobu_test_bot"
MAX_TEXT_UNITS = 4096
_READ_BYTES = 65_536


class Cut(Exception):
    """The connection ends in the middle."""


@attrs.frozen
class Failure:
    """An answer that is to be given instead of the right one."""

    code: int
    description: str = "made up"
    parameters: dict[str, Any] = attrs.field(factory=dict)
    raw: bytes | None = None  # the body as it is, whatever it is


CUT = Failure(0)


@attrs.define
class Poll:
    client: str  # address and port
    began: float
    timeout: float
    offset: int | None
    ended: float = math.inf
    given: int = 0


@attrs.frozen
class Sent:
    chat_id: int
    text: str
    topic: int | None
    reply_to: int | None
    at: float


class FakeTelegram:
    def __init__(self) -> None:
        self.url = ""
        self.polls: list[Poll] = []
        self.overlaps: list[tuple[Poll, Poll]] = []
        self.sent: list[Sent] = []
        self.typing: list[int] = []
        self.calls: list[str] = []
        self.failures: dict[str, deque[Failure]] = {}
        self.blocked: set[int] = set()
        self.gone: set[int] = set()
        self.moved: dict[int, int] = {}
        self.answer_delay_seconds = 0.0  # of what is sent: taken first, answered later
        self._updates: deque[dict[str, Any]] = deque()
        self._next_update, self._next_message = 1000, 1
        self._changed = trio.Event()
        self._polling: tuple[Poll, trio.Event] | None = None

    # --- what people do

    def say(self, chat_id: int, text: str | None, *, chat_type: str = "private", **more: Any) -> str:
        """A person writes; gives the message's key. `more` goes into the message."""
        message_id, self._next_message = self._next_message, self._next_message + 1
        message: dict[str, Any] = {
            "message_id": message_id,
            "date": 1_790_000_000,
            "chat": {"id": chat_id, "type": chat_type},
            "from": {"id": 5, "is_bot": False, "first_name": "Ann"},
            **({} if text is None else {"text": text}),
            **more,
        }
        return f"telegram:{self.update({'message': message})}:{message_id}"

    def update(self, content: dict[str, Any]) -> int:
        update_id, self._next_update = self._next_update, self._next_update + 1
        self._updates.append({"update_id": update_id, **content})
        self._changed.set()
        return update_id

    def begin_lower(self) -> None:
        """After a quiet week the numbers may begin anywhere."""
        assert not self._updates
        self._next_update = 10

    def fail(self, method: str, *failures: Failure) -> None:
        self.failures.setdefault(method, deque()).extend(failures)

    # --- what a test asks

    @property
    def unconfirmed(self) -> int:
        return len(self._updates)

    def texts(self, chat_id: int) -> list[str]:
        return [sent.text for sent in self.sent if sent.chat_id == chat_id]

    # --- the server

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeTelegram]:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._serve, 0)
            self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            yield self
            nursery.cancel_scope.cancel()

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        with suppress(trio.BrokenResourceError, h11.RemoteProtocolError, Cut):
            async with stream:
                while (request := await _read(stream, connection)) is not None:
                    path, body = request
                    status, answer = await self._answer(path, body, stream)
                    head = h11.Response(status_code=status, headers=[("content-length", str(len(answer)))])
                    data = (head, h11.Data(data=answer), h11.EndOfMessage())
                    await stream.send_all(b"".join(connection.send(event) or b"" for event in data))
                    connection.start_next_cycle()

    async def _answer(self, path: str, body: bytes, stream: trio.SocketStream) -> tuple[int, bytes]:
        _, bot, method = path.split("/")
        self.calls.append(method)
        if bot != f"bot{TOKEN}":
            return _refusal(Failure(401, "Unauthorized"))
        if planned := self.failures.get(method):
            failure = planned.popleft()
            if failure is CUT:
                raise Cut
            return (failure.code, failure.raw) if failure.raw is not None else _refusal(failure)
        values = json.loads(body)
        result: Any
        match method:
            case "getMe":
                result = {"id": BOT_ID, "is_bot": True, "first_name": "Test", "username": BOT_NAME}
            case "getUpdates":
                result = await self._get_updates(values, stream)
            case "sendMessage":
                result = await self._send_message(values)
            case "sendChatAction":
                self.typing.append(values["chat_id"])
                result = True
            case _:
                result = Failure(404, "Not Found")
        if isinstance(result, Failure):
            return _refusal(result)
        return 200, json.dumps({"ok": True, "result": result}).encode()

    async def _get_updates(self, values: dict[str, Any], stream: trio.SocketStream) -> Any:
        host, port = stream.socket.getpeername()[:2]
        poll = Poll(f"{host}:{port}", trio.current_time(), values.get("timeout", 0), values.get("offset"))
        if self._polling is not None:
            self.overlaps.append((self._polling[0], poll))
            self._polling[1].set()
        superseded = trio.Event()
        mine = self._polling = (poll, superseded)
        self.polls.append(poll)
        try:
            offset = values.get("offset")
            while offset is not None and self._updates and self._updates[0]["update_id"] < offset:
                self._updates.popleft()
            if not self._updates and poll.timeout:
                await self._wait(poll.timeout, superseded, stream)
            if superseded.is_set():
                return Failure(
                    409, "Conflict: terminated by other getUpdates request; make sure that only one bot runs"
                )
            found = [update for update in self._updates if offset is None or update["update_id"] >= offset]
            found = found[: values.get("limit", 100)]
            poll.given = len(found)
            return found
        finally:
            poll.ended = trio.current_time()
            if self._polling is mine:
                self._polling = None

    async def _wait(self, seconds: float, superseded: trio.Event, stream: trio.SocketStream) -> None:
        """Until there is an update, another poll or the end of the time; raises Cut when the client hung up."""
        hung_up = False

        async with trio.open_nursery() as nursery:

            async def wait_for(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            async def wait_for_hang_up() -> None:
                nonlocal hung_up
                with suppress(trio.BrokenResourceError):
                    assert await stream.receive_some(1) == b"", "nobody sends a second request into a poll"
                hung_up = True
                nursery.cancel_scope.cancel()

            self._changed = trio.Event()
            nursery.start_soon(wait_for, self._changed)
            nursery.start_soon(wait_for, superseded)
            nursery.start_soon(wait_for_hang_up)
            nursery.cancel_scope.deadline = trio.current_time() + seconds
        if hung_up:
            raise Cut

    async def _send_message(self, values: dict[str, Any]) -> Any:
        chat_id, text = values["chat_id"], values["text"]
        if chat_id in self.blocked:
            return Failure(403, "Forbidden: bot was blocked by the user")
        if chat_id in self.gone:
            return Failure(400, "Bad Request: chat not found")
        if chat_id in self.moved:
            parameters = {"migrate_to_chat_id": self.moved[chat_id]}
            return Failure(400, "Bad Request: group chat was upgraded to a supergroup chat", parameters)
        if not text.strip():
            return Failure(400, "Bad Request: message text is empty")
        if len(text.encode("utf-16-le")) // 2 > MAX_TEXT_UNITS:
            return Failure(400, "Bad Request: message is too long")
        reply_to = values.get("reply_parameters", {}).get("message_id")
        self.sent.append(Sent(chat_id, text, values.get("message_thread_id"), reply_to, trio.current_time()))
        await trio.sleep(self.answer_delay_seconds)
        return {"message_id": len(self.sent), "date": 0, "chat": {"id": chat_id}, "text": text}


async def _read(stream: trio.SocketStream, connection: h11.Connection) -> tuple[str, bytes] | None:
    """A request's path and body; None when the client is done."""
    path, body = "", b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_READ_BYTES))
        elif isinstance(event, h11.Request):
            path = event.target.decode()
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return path, body
        else:
            return None


def _refusal(failure: Failure) -> tuple[int, bytes]:
    body = {"ok": False, "error_code": failure.code, "description": failure.description}
    return failure.code, json.dumps(body | ({"parameters": failure.parameters} if failure.parameters else {})).encode()
