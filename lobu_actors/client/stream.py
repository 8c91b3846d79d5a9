"""A conversation's events, in order and each once, over as many connections as it takes.

The iterator owns one connection at a time and a `Transcript`. A cut, a clean end before the end, silence, `drain` and
refusals that pass by lead to a new connection from the last id; after `RetryPolicy.attempts` of them in a row without
anything new it gives up. A class rather than an async generator: a generator that is left in the middle cannot clean
up on trio.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import anyio
import httpx

from lobu_actors.client.errors import StreamLost, UnexpectedAnswer
from lobu_actors.client.http import (
    CONNECT_SECONDS,
    SILENCE_SECONDS,
    away,
    read_error_body,
    refusal,
    retry_after_seconds,
)
from lobu_actors.client.retry import RETRIED_STATUSES, RetryPolicy
from lobu_actors.client.sse import FrameTooLarge, SseDecoder, SseFrame
from lobu_actors.client.transcript import ClientEvent, Transcript
from lobu_actors.contract.events import EventType

# How long a server may take to end a stream behind its last event; then we cut it.
END_SECONDS = 1.0


class EventStream:
    """Async iterator of `ClientEvent`, and its context manager; leave it by `aclose` or `async with`.

    Ends behind the followed message's terminal event, or behind `closed`. Raises RequestRefused (401, 403, 404, …),
    StreamLost, UnexpectedAnswer. One task at a time.
    """

    def __init__(
        self, http: httpx.AsyncClient, path: str, transcript: Transcript, message_id: str | None, retry: RetryPolicy
    ) -> None:
        self.transcript = transcript
        self.connections = 0
        self._http = http
        self._path = path
        self._message_id = message_id
        self._retry = retry
        self._base_seconds: float | None = None  # what `retry:` or `drain` asked for
        self._failures = 0  # in a row, without a new id in between
        self._why = "it was never opened"
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._decoder = SseDecoder()
        self._frames: deque[SseFrame] = deque()  # received, not looked at
        self._ready: deque[ClientEvent] = deque()
        self._ended = False

    @property
    def last_id(self) -> str | None:
        """Where another stream can go on: the id of the last event that was given out."""
        return self.transcript.last_id

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> ClientEvent:
        while not self._ready:
            if self._ended:
                await self._disconnect(END_SECONDS)
                raise StopAsyncIteration
            if self._frames:
                # One at a time, so that `last_id` and the transcript are never ahead of what was given out.
                await self._frame(self._frames.popleft())
            else:
                await self._receive()
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Drop the connection. Safe to call again."""
        self._ended = True
        self._ready.clear()
        await self._disconnect(0)

    # --- connections

    async def _receive(self) -> None:
        """Until something came: connect if need be, and read once."""
        if self._chunks is None:
            if self._failures:
                await anyio.sleep(self._retry.delay_seconds(self._failures, self._base_seconds))
            await self._connect()
            return
        try:
            chunk = await anext(self._chunks)
            frames = self._decoder.feed(chunk)
        except StopAsyncIteration:
            await self._broken("the server ended it")
        except httpx.TransportError as error:
            await self._broken(str(away(self._http, error)))
        except FrameTooLarge as error:
            raise UnexpectedAnswer(f"The event stream sent {error}.") from error
        else:
            self._frames.extend(frames)

    async def _connect(self) -> None:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        params = {} if self._message_id is None else {"messageId": self._message_id}
        if self.transcript.last_id is not None:
            headers["Last-Event-ID"] = self.transcript.last_id
        request = self._http.build_request(
            "GET",
            self._path,
            params=params,
            headers=headers,
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
        )
        self._decoder = SseDecoder()
        try:
            response = await self._http.send(request, stream=True)
        except httpx.TransportError as error:
            await self._broken(str(away(self._http, error)))
            return
        self._response = response
        try:
            await self._begin(response)
        except httpx.TransportError as error:
            await self._broken(str(away(self._http, error)))

    async def _begin(self, response: httpx.Response) -> None:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if response.status_code == 200 and kind == "text/event-stream":
            self._chunks = aiter(response.aiter_bytes())
            self.connections += 1
            return
        await read_error_body(response)
        if response.status_code == 204:
            self._ended = True  # the conversation was closed and we have all of it
        elif response.status_code in RETRIED_STATUSES:
            asked = retry_after_seconds(response)
            self._base_seconds = asked if asked is not None else self._base_seconds
            await self._broken(str(refusal(response)))
        elif response.is_success:
            raise UnexpectedAnswer(f"{response.url} answered {kind or 'nothing'} in place of an event stream.")
        else:
            raise refusal(response)

    async def _broken(self, why: str) -> None:
        """Count a connection that ended too early. Raises StreamLost when it was the last that may."""
        self._why = why
        self._failures += 1
        if self._decoder.retry_ms is not None:
            self._base_seconds = self._decoder.retry_ms / 1000
        await self._disconnect(0)
        if self._failures >= self._retry.attempts:
            self._ended = True
            raise StreamLost(
                f"The event stream broke and did not come back in {self._failures} attempts ({self._why}).",
                self.transcript.last_id,
            )

    async def _disconnect(self, seconds: float) -> None:
        """Close the response. Reads on under a deadline first: only a generator that was resumed ends cleanly."""
        self._frames.clear()
        chunks, self._chunks = self._chunks, None
        response, self._response = self._response, None
        if chunks is not None:
            with anyio.move_on_after(seconds):
                try:
                    async for _ in chunks:
                        pass
                except httpx.TransportError:
                    pass  # it was going to be closed
        if response is not None:
            await response.aclose()

    # --- events

    async def _frame(self, frame: SseFrame) -> None:
        try:
            data: Any = json.loads(frame.data)
        except ValueError as error:
            raise UnexpectedAnswer(f"The event stream sent {frame.event!r} with data that is not JSON.") from error
        if not isinstance(data, dict):
            raise UnexpectedAnswer(f"The event stream sent {frame.event!r} with data that is no JSON object.")
        if frame.event == EventType.CONNECTED:
            return
        if frame.event == EventType.DRAIN:
            asked = data.get("reconnectInMs")
            await self._broken("the server is going down")
            self._base_seconds = asked / 1000 if isinstance(asked, int | float) and asked >= 0 else self._base_seconds
            return
        before = self.transcript.last_id
        try:
            events = self.transcript.accept(frame.event, data, frame.id)
        except ValueError as error:
            raise UnexpectedAnswer(f"The event stream sent {frame.event!r} that does not fit: {error}.") from error
        if self.transcript.last_id != before:
            self._failures = 0
        self._ready.extend(events)
        for event in events:
            followed = event.terminal and event.message_id is not None and event.message_id == self._message_id
            if followed or event.type == EventType.CLOSED:
                self._ended = True
