"""Restate: a conversation is a virtual object, a message an invocation of it, the worker's turn a step of that.

Its part: the invocation is kept before it starts, in Restate's own log on disk, and so is the step's result before
anything follows; one invocation of an object runs at a time; what lost its process is tried again. The terminal event
goes to the readers behind the step; the object's state has the last ones, for a reader who comes back. The web server
and the endpoint that Restate calls are one process here, so that the readers are at hand.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import restate
from hypercorn.asyncio import serve as serve_endpoint
from hypercorn.config import Config
from starlette.applications import Starlette

from benchmarks.rivals.interface import frame
from benchmarks.rivals.pool import Pool, WorkerDied
from benchmarks.rivals.web import Hub, app, serve

INGRESS = os.environ.get("RIVAL_INGRESS", "")
ADMIN = os.environ.get("RIVAL_ADMIN", "")
ENDPOINT_PORT = os.environ.get("RIVAL_ENDPOINT_PORT", "")
KEPT = 100  # terminal events of a conversation
REGISTER_SECONDS = 30.0

hub = Hub()
pool = Pool()
conversations = restate.VirtualObject("Conversation")
client: Any = None


async def _run(conversation: str, message: str, text: str) -> list[str]:
    def on_delta(piece: str) -> None:
        hub.publish(conversation, frame("output", content=piece, messageId=message))

    try:
        return ["complete", await pool.turn(conversation, text, on_delta)]
    except WorkerDied as died:
        return ["agent-error", str(died)]


async def _turn(ctx: restate.ObjectContext, asked: dict[str, Any]) -> None:
    conversation, message, number = ctx.key(), asked["message"], asked["number"]
    event, _ = await ctx.run_typed("worker", _run, conversation=conversation, message=message, text=asked["text"])
    before = await ctx.get("ended") or []
    ctx.set("ended", [*before[1 - KEPT :], [number, event, message]])
    hub.publish(conversation, frame(event, number, messageId=message))


async def _ended(ctx: restate.ObjectSharedContext) -> list[Any]:
    return await ctx.get("ended") or []


turn = conversations.handler("turn")(_turn)
ended_handler = conversations.handler("ended", kind="shared")(_ended)


class Endpoint(Config):
    def create_sockets(self) -> Any:
        """Hypercorn's are inherited; a worker that outlives a killed service would keep the port."""
        found = super().create_sockets()
        for listener in found.insecure_sockets:
            listener.set_inheritable(False)
        return found


@asynccontextmanager
async def life(_: Starlette) -> AsyncIterator[None]:
    global client
    config = Endpoint()
    config.bind = [f"127.0.0.1:{ENDPOINT_PORT}"]
    config.h2_max_concurrent_streams = 2147483647  # one connection has all invocations
    config.keep_alive_max_requests = 2147483647
    asgi = restate.app([conversations])
    async with asyncio.TaskGroup() as group:
        endpoint = group.create_task(serve_endpoint(asgi, config, shutdown_trigger=asyncio.Event().wait))
        await _register()
        async with restate.create_client(INGRESS) as client:
            yield
        endpoint.cancel()


async def _register() -> None:
    """Tell Restate where the endpoint is; it looks, so both must be up."""
    async with httpx.AsyncClient() as admin, asyncio.timeout(REGISTER_SECONDS):
        while True:
            try:
                wanted = {"uri": f"http://127.0.0.1:{ENDPOINT_PORT}", "force": False}
                answer = await admin.post(f"{ADMIN}/deployments", json=wanted)
                if answer.is_success:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.05)


async def accept(conversation: str, message: str, text: str) -> None:
    asked = {"message": message, "text": text, "number": time.time_ns()}
    await client.object_send(turn, conversation, asked, idempotency_key=message)


async def ended(conversation: str, behind: int) -> list[bytes]:
    known = await client.object_call(ended_handler, conversation, None)
    return [frame(event, number, messageId=message) for number, event, message in known if number > behind]


if __name__ == "__main__":
    serve(app(hub, accept, ended, life))
