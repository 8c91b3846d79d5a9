"""DBOS Transact: a message is a workflow of one step, which is the worker's turn.

Its part: the workflow is kept before it starts, the step's result before anything follows, and what was not done is
started again when the process comes back. The terminal event goes to the readers behind the step's commit; a reader who
comes back reads it from the workflows that have ended. The id of a workflow is that of its message, so a message that
is posted twice is one workflow. No queue: its dispatcher polls, and is slower.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from dbos import DBOS, SetWorkflowID
from starlette.applications import Starlette

from benchmarks.rivals.interface import DATABASE, frame
from benchmarks.rivals.pool import Pool, WorkerDied
from benchmarks.rivals.web import Hub, app, serve

NAME = "rival"
hub = Hub()
pool = Pool()


async def _turn(conversation: str, message: str, text: str) -> list[str]:
    def on_delta(piece: str) -> None:
        hub.publish(conversation, frame("output", content=piece, messageId=message))

    try:
        return ["complete", await pool.turn(conversation, text, on_delta)]
    except WorkerDied as died:
        return ["agent-error", str(died)]


async def _message(conversation: str, message: str, text: str, number: int) -> list[str]:
    ended = await turn(conversation, message, text)
    hub.publish(conversation, frame(ended[0], number, messageId=message))
    return list(ended)


turn = DBOS.step()(_turn)
message_workflow = DBOS.workflow()(_message)


@asynccontextmanager
async def life(_: Starlette) -> AsyncIterator[None]:
    DBOS.launch()  # within the loop: recovered workflows then run here too, beside the pool and the hub
    try:
        yield
    finally:
        DBOS.destroy()


async def accept(conversation: str, message: str, text: str) -> None:
    with SetWorkflowID(f"{conversation}:{message}"):
        await DBOS.start_workflow_async(message_workflow, conversation, message, text, time.time_ns())


async def ended(conversation: str, behind: int) -> list[bytes]:
    since = datetime.fromtimestamp(behind // 10**9, UTC).isoformat()
    done = await DBOS.list_workflows_async(workflow_id_prefix=f"{conversation}:", status="SUCCESS", start_time=since)
    found = []
    for one in done:
        _, message, _, number = one.input["args"]
        if number > behind:
            found.append(frame(one.output[0], number, messageId=message))
    return found


if __name__ == "__main__":
    DBOS(
        config={
            "name": NAME,
            "system_database_url": DATABASE,
            "application_version": "1",
            "log_level": "WARNING",
        }
    )
    serve(app(hub, accept, ended, life))
