"""LangGraph's local server (`langgraph dev`): a conversation is a thread, a message a run of a graph with one node.

Its part: threads, runs one after another on each thread, and their results, in memory and written to a file now and
then; what it keeps in Postgres is not in the local server. Our HTTP is in its process by its setting for custom
routes, talks to it through its SDK without a socket, and hears of a run's end by joining it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph_sdk import get_client
from langgraph_sdk.errors import NotFoundError
from starlette.applications import Starlette

from benchmarks.rivals.interface import frame
from benchmarks.rivals.pool import Pool, WorkerDied
from benchmarks.rivals.web import Hub, app

NAME = "turn"

hub = Hub()
pool = Pool()
followed: dict[str, asyncio.Task[None]] = {}  # by the run's id


class Turn(TypedDict):
    conversation: str
    message: str
    text: str
    number: int
    event: str
    reply: str


async def _turn(state: Turn) -> dict[str, str]:
    def on_delta(piece: str) -> None:
        hub.publish(state["conversation"], frame("output", content=piece, messageId=state["message"]))

    try:
        return {"event": "complete", "reply": await pool.turn(state["conversation"], state["text"], on_delta)}
    except WorkerDied as died:
        return {"event": "agent-error", "reply": str(died)}


def _graph() -> Any:
    builder: Any = StateGraph(Turn)
    builder.add_node(NAME, _turn)
    builder.add_edge(START, NAME)
    builder.add_edge(NAME, END)
    return builder.compile()


graph = _graph()


def _thread(conversation: str) -> str:
    """As a UUID, which it wants."""
    parts = (conversation[:8], conversation[8:12], conversation[12:16], conversation[16:20], conversation[20:])
    return "-".join(parts)


async def accept(conversation: str, message: str, text: str) -> None:
    asked = {"conversation": conversation, "message": message, "text": text, "number": time.time_ns()}
    run = await get_client().runs.create(
        _thread(conversation), NAME, input=asked, if_not_exists="create", multitask_strategy="enqueue"
    )
    _follow(conversation, run["run_id"])


def _follow(conversation: str, run_id: str) -> None:
    if run_id not in followed:
        task = followed[run_id] = asyncio.create_task(_end(conversation, run_id))
        task.add_done_callback(lambda _: followed.pop(run_id))


async def _end(conversation: str, run_id: str) -> None:
    hub.publish(conversation, _terminal(await get_client().runs.join(_thread(conversation), run_id)))


def _terminal(state: Any) -> bytes:
    return frame(state.get("event", "agent-error"), state["number"], messageId=state["message"])


async def ended(conversation: str, behind: int) -> list[bytes]:
    """A thread knows its last turn. Those that are under way are followed: they may be from before a restart."""
    client, thread = get_client(), _thread(conversation)
    try:
        runs = await client.runs.list(thread)
        state = (await client.threads.get_state(thread))["values"]
    except NotFoundError:  # it was forgotten
        return []
    under_way = [run for run in runs if run["status"] in ("pending", "running")]
    for run in under_way:
        _follow(conversation, run["run_id"])
    return [] if under_way or state.get("number", 0) <= behind else [_terminal(state)]


@asynccontextmanager
async def life(_: Starlette) -> AsyncIterator[None]:
    yield


application = app(hub, accept, ended, life)
