"""HTTP and SSE of the rivals that are Python services: as much of our interface as the load generator uses.

A service says how a message is taken (`Accept`: durable when it returns) and what of a conversation has ended behind an
id (`Ended`: for a reader who comes back); whatever it has for readers it gives to the `Hub`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from benchmarks.rivals.interface import HERE, KEY, MOST_WAITING, PORT, REFUSED, frame, token_of

Accept = Callable[[str, str, str], Awaitable[None]]  # conversation, id of the message, its text
Ended = Callable[[str, int], Awaitable[list[bytes]]]
Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


class Hub:
    """The readers of each conversation, in memory."""

    def __init__(self) -> None:
        self._readers: dict[str, set[asyncio.Queue[bytes | None]]] = {}

    def publish(self, conversation: str, data: bytes) -> None:
        for reader in self._readers.get(conversation, ()):
            if reader.qsize() < MOST_WAITING:
                reader.put_nowait(data)
            elif reader.qsize() == MOST_WAITING:
                reader.put_nowait(None)

    async def read(self, conversation: str, behind: int | None, ended: Ended) -> AsyncIterator[bytes]:
        """What comes, and first, for one who knows the events up to `behind`, what came meanwhile."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        readers = self._readers.setdefault(conversation, set())
        readers.add(queue)
        try:
            yield frame("connected")
            if behind is not None:
                for data in await ended(conversation, behind):
                    yield data
            while (data_or_end := await queue.get()) is not None:
                yield data_or_end
        finally:
            readers.discard(queue)
            if not readers:
                self._readers.pop(conversation, None)


def _may(request: Request, wanted: str) -> bool:
    return hmac.compare_digest(request.headers.get("authorization", ""), f"Bearer {wanted}")


def app(hub: Hub, accept: Accept, ended: Ended, lifespan: Lifespan) -> Starlette:
    async def open_conversation(request: Request) -> Response:
        if not _may(request, KEY):
            return JSONResponse(REFUSED, 401)
        conversation = uuid4().hex
        return JSONResponse({"success": True, "agentId": conversation, "token": token_of(conversation)}, 201)

    async def post(request: Request) -> Response:
        conversation = request.path_params["conversation"]
        if not _may(request, token_of(conversation)):
            return JSONResponse(REFUSED, 401)
        body = json.loads(await request.body())
        message = body.get("messageId") or uuid4().hex
        await accept(conversation, message, body["content"])
        return JSONResponse({"success": True, "messageId": message})

    async def events(request: Request) -> Response:
        conversation = request.path_params["conversation"]
        if not _may(request, token_of(conversation)):
            return JSONResponse(REFUSED, 401)
        last_id = request.headers.get("last-event-id")

        async def body() -> AsyncIterator[bytes]:
            async with aclosing(hub.read(conversation, int(last_id) if last_id else None, ended)) as stream:  # type: ignore[type-var]
                async for data in stream:
                    yield data

        return StreamingResponse(body(), media_type="text/event-stream")

    routes = [
        Route(HERE, open_conversation, methods=["POST"]),
        Route(HERE + "/{conversation}/messages", post, methods=["POST"]),
        Route(HERE + "/{conversation}/events", events),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def serve(application: Starlette) -> None:
    """Until it is killed."""
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=PORT,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        backlog=4096,
    )
