"""One provider over HTTP: a request is posted, its stream read, and asked again within bounds when that may help.

Owns the connections, which live as long as the worker, and the waits between attempts. An answer of which the client
has seen a piece is never asked for again: nobody can take the piece back.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import httpx
from httpx_sse import EventSource

from lobu_actors.agents import provider_errors as errors
from lobu_actors.agents.openai.dialect import Answer
from lobu_actors.agents.openai.settings import Settings
from lobu_actors.agents.provider_errors import ProviderError
from lobu_actors.worker import Fail, Turn

Json = dict[str, Any]
MAX_ERROR_BYTES = 64 * 1024  # what is read of a refusal
THINKING_SECONDS = 5.0  # how often a client is told that the model still thinks
LINGER_SECONDS = 0.25  # for the connection's last bytes behind `[DONE]`
SEPARATOR = "\n\n"  # between what the model said before its tools and after


class Provider:
    def __init__(self, base_url: str, key: str) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._key = key
        # No deadline on reading: the agent's own clocks say how long a model may think.
        self._http = httpx.AsyncClient(timeout=None)

    async def ask(self, turn: Turn, body: Json, settings: Settings, *, follows: bool) -> Answer:
        """The model's answer, whose text is written to the turn as it comes, behind a space if it `follows` another.

        Raises Fail.
        """
        retries = 0
        while True:
            answer = Answer()
            try:
                await self._attempt(turn, body, settings, answer, SEPARATOR if follows else "")
            except ProviderError as error:
                delay = None if answer.text else wait_seconds(error, retries, settings)
                if delay is None:
                    raise Fail(error.code, self._safe(error.message), retryable=error.may_retry) from error
                retries += 1
                again = f"trying again in {delay:g} s ({retries} of {settings.retries})"
                told = self._safe(error.message).rstrip(".")
                turn.status(f"{told}; {again}", phase="waiting", code=error.code)
                await asyncio.sleep(delay)
            else:
                return answer

    async def _attempt(self, turn: Turn, body: Json, settings: Settings, answer: Answer, before: str) -> None:
        told = -THINKING_SECONDS
        now = asyncio.get_running_loop().time
        events = self._events(turn, body, settings)
        try:
            async for data in events:
                if text := answer.take(data):
                    turn.write(before + text)
                    before = ""
                elif answer.reasoned and now() - told >= THINKING_SECONDS:
                    told = now()
                    turn.status("thinking", phase="model")
                if answer.ended:
                    break
            with suppress(TimeoutError):  # what is read to its end can be used again
                async with asyncio.timeout(LINGER_SECONDS):
                    await anext(events, None)
        finally:
            await events.aclose()
        answer.check_whole()

    async def _events(self, turn: Turn, body: Json, settings: Settings) -> AsyncGenerator[str, None]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode("ascii")
        timeout = httpx.Timeout(None, connect=settings.connect_seconds)
        try:
            async with self._http.stream("POST", self._url, content=data, headers=headers, timeout=timeout) as response:
                await self._check(turn, response)
                async for event in EventSource(response).aiter_sse():
                    if event.data:
                        yield event.data
        except httpx.ConnectError as error:
            raise errors.broken("could not be reached") from error
        except httpx.TimeoutException as error:
            raise errors.broken(f"took no connection within {settings.connect_seconds:g} s") from error
        except httpx.HTTPError as error:
            raise errors.broken("broke the connection off") from error

    async def _check(self, turn: Turn, response: httpx.Response) -> None:
        """Raises ProviderError unless a stream follows."""
        if response.status_code == 200 and "text/event-stream" in response.headers.get("content-type", ""):
            return
        data = b""
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > MAX_ERROR_BYTES:
                break
        text = data[:MAX_ERROR_BYTES].decode(errors="replace")
        turn.log("provider refused", level="warning", status=response.status_code, body=self._safe(text[:2000]))
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        if response.status_code != 200:
            raise errors.of_status(response.status_code, body, response.headers.get("retry-after"))
        if isinstance(body, dict) and body.get("error") is not None:
            raise errors.of_event(body["error"])
        raise errors.broken("answered with something that is no stream")

    def _safe(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def wait_seconds(error: ProviderError, retries: int, settings: Settings) -> float | None:
    """How long to wait before the next attempt; None: there is none. Pure."""
    if not error.may_retry or retries >= settings.retries:
        return None
    delay = min(settings.retry_seconds * 2.0**retries, settings.retry_max_seconds)
    if error.after_seconds is None:
        return delay
    return max(delay, error.after_seconds) if error.after_seconds <= settings.retry_max_seconds else None
