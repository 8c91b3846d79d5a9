"""Calls on a gateway: open a conversation, send, follow, answer, cancel, reset, close, history.

Every call has a deadline. What acts on a conversation repeats itself while the server is away for a moment, as in a
restart: a message's id is made here, before it is sent, so that one whose answer was lost can be sent again and still
be one turn, and to cancel, to answer and to close again changes nothing. What reads, and `open`, fails at once.
"""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any
from urllib.parse import quote

import anyio
import attrs
import httpx
import msgspec

from lobu_actors.client.errors import RequestRefused, ServerAway, UnexpectedAnswer
from lobu_actors.client.http import REQUEST_SECONDS, away, decode_answer, new_http, retry_after_seconds
from lobu_actors.client.retry import RETRIED_STATUSES, RetryPolicy
from lobu_actors.client.stream import EventStream
from lobu_actors.client.transcript import Transcript
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import new_id

Json = dict[str, Any]

API = "/api/v1/agents"
MAX_PAGE = 200
CALL_RETRY = RetryPolicy(attempts=8, base_seconds=0.5, max_seconds=5.0)


@attrs.frozen
class Conversation:
    """An opened conversation. `token` opens this conversation alone, until `expires_at` (as the server wrote it)."""

    key: str
    token: str = attrs.field(repr=False)
    expires_at: Any
    thread: str | None


class Receipt(msgspec.Struct, frozen=True):
    """An accepted message: from now on a terminal event is owed. `turn_id` is None for a command like `/new`."""

    message_id: str
    turn_id: str | None
    queued: bool
    position: int


class Client:
    """`base_url` of a gateway and a bearer: an API key, or a conversation's token. Use as an async context manager.

    All methods raise ServerAway, RequestRefused and UnexpectedAnswer.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        call_retry: RetryPolicy = CALL_RETRY,
    ) -> None:
        """`retry` is for streams, `call_retry` for calls that act."""
        self._http = new_http(base_url, key)
        self._retry = retry or RetryPolicy()
        self._call_retry = call_retry
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its streams and connections."""
        for stream in list(self._streams):
            await stream.aclose()
        await self._http.aclose()

    async def open(
        self, agent: str | None = None, *, user: str | None = None, thread: str | None = None, new: bool = False
    ) -> Conversation:
        """Open or resume a conversation; with `new` always a fresh one. No agent: the organization's default one."""
        body: Json = {"agentId": agent, "userId": user, "thread": thread}
        body = {name: value for name, value in body.items() if value is not None}
        if new:
            body["forceNew"] = True
        answer = await self._call("POST", API, json=body)
        return Conversation(
            key=_text(answer, "agentId"),
            token=_text(answer, "token"),
            expires_at=answer.get("expiresAt"),
            thread=answer.get("threadId"),
        )

    async def send(
        self, key: str, content: str, *, message_id: str | None = None, on_busy: str | None = None, **fields: Any
    ) -> Receipt:
        """Send a message; further `fields` are passed on to the worker. Repeats itself when the answer is lost."""
        body: Json = {**fields, "content": content, "messageId": message_id or new_id()}
        if on_busy is not None:
            body["onBusy"] = on_busy
        return _receipt(await self._act("POST", f"{_path(key)}/messages", body), body)

    def stream(
        self,
        key: str,
        *,
        since: str | None = None,
        message_id: str | None = None,
        transcript: Transcript | None = None,
    ) -> EventStream:
        """Events from behind `since`; ends behind `message_id`'s terminal event when one is given.

        `transcript`: the state of an earlier stream, to go on where it stopped; it replaces `since`.
        Raises ValueError for a `since` that is no event's id.
        """
        held = transcript or Transcript(since)
        stream = EventStream(self._http, f"{_path(key)}/events", held, message_id, self._retry)
        self._streams.add(stream)
        return stream

    async def answer(self, key: str, question_id: str, answer: str) -> None:
        """Answer a question. Raises RequestRefused with status 409 when somebody was first.

        When the server's word was lost on the way, and then somebody is said to have been first, that is taken to be
        this answer; the event `question-answered` tells which one counts.
        """
        path = f"{_path(key)}/questions/{quote(question_id, safe='')}/answer"
        await self._act("POST", path, {"answer": answer}, ours=ApiError.QUESTION_ANSWERED)

    async def cancel(self, key: str, message_id: str | None = None) -> Json:
        """Cancel one message, or everything owed. The answer is a receipt; `cancelled` follows on the stream."""
        body = {} if message_id is None else {"messageId": message_id}
        return await self._act("POST", f"{_path(key)}/cancel", body)

    async def reset(self, key: str, *, message_id: str | None = None) -> Receipt:
        """Start afresh: the agent forgets the session. Its own `complete` says that it is done."""
        body: Json = {"messageId": message_id or new_id()}
        return _receipt(await self._act("POST", f"{_path(key)}/reset", body), body)

    async def close(self, key: str) -> None:
        """End the conversation for good."""
        await self._act("DELETE", _path(key))

    async def info(self, key: str) -> Json:
        """The `agent` object: status, queued, running, activity."""
        agent = (await self._call("GET", _path(key))).get("agent")
        return agent if isinstance(agent, dict) else {}

    async def history(self, key: str, *, cursor: str | None = None, limit: int = MAX_PAGE) -> Json:
        """One page of the session's messages as the server gives it; `limit` is at most 200."""
        params = {"limit": str(limit)} | ({} if cursor is None else {"cursor": cursor})
        return await self._call("GET", f"{_path(key)}/session/messages", params=params)

    async def ready(self) -> bool:
        """Whether the gateway takes work; False while it drains or starts."""
        try:
            response = await self._request("GET", "/health/ready", None, None)
        except httpx.TransportError as error:
            raise away(self._http, error) from error
        return response.is_success

    async def _call(
        self, method: str, path: str, *, json: Json | None = None, params: dict[str, str] | None = None
    ) -> Json:
        """One request."""
        try:
            return decode_answer(await self._request(method, path, json, params))
        except httpx.TransportError as error:
            raise away(self._http, error) from error

    async def _act(self, method: str, path: str, json: Json | None = None, *, ours: ApiError | None = None) -> Json:
        """A request that may be repeated, as long as that may help. `ours`: a refusal that an earlier try caused."""
        failures, unknown = 0, False
        while True:
            asked = None
            failures += 1
            try:
                response = await self._request(method, path, json, None)
            except httpx.TransportError as error:
                unknown = unknown or not isinstance(error, httpx.ConnectError)
                if failures >= self._call_retry.attempts:
                    raise away(self._http, error) from error
            else:
                if response.status_code not in RETRIED_STATUSES or failures >= self._call_retry.attempts:
                    break
                unknown = True
                asked = retry_after_seconds(response)
            await anyio.sleep(self._call_retry.delay_seconds(failures, asked))
        try:
            return decode_answer(response)
        except RequestRefused as refused:
            if unknown and ours is not None and refused.code == ours:
                return {}
            raise

    async def _request(
        self, method: str, path: str, json: Json | None, params: dict[str, str] | None
    ) -> httpx.Response:
        response = None
        with anyio.move_on_after(REQUEST_SECONDS):
            response = await self._http.request(method, path, json=json, params=params)
        if response is None:
            raise ServerAway(f"{str(self._http.base_url).rstrip('/')} did not answer in {REQUEST_SECONDS:.0f} seconds")
        return response


def _path(key: str) -> str:
    return f"{API}/{quote(key, safe='')}"


def _receipt(answer: Json, sent: Json) -> Receipt:
    turn_id, position = answer.get("turnId"), answer.get("position")
    return Receipt(
        message_id=_text(answer, "messageId", sent["messageId"]),
        turn_id=turn_id if isinstance(turn_id, str) else None,
        queued=bool(answer.get("queued")),
        position=position if isinstance(position, int) else 0,
    )


def _text(answer: Json, name: str, default: str | None = None) -> str:
    value = answer.get(name, default)
    if not isinstance(value, str):
        raise UnexpectedAnswer(f"The gateway's answer lacks `{name}`; is it of another version?")
    return value
