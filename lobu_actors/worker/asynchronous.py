"""Runs coroutines and asynchronous generators, one turn after another, on one asyncio loop for the worker's life.

Owns how the reading thread's news reach the loop. Imported only when the handler is asynchronous.
"""

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from lobu_actors.worker import ending
from lobu_actors.worker.channel import Disconnected
from lobu_actors.worker.turn import Run, Turn

if TYPE_CHECKING:
    from lobu_actors.worker.serve import Handler, Worker


def run_turns(worker: "Worker", handler: "Handler") -> None:
    asyncio.run(_serve(worker, handler))


async def _serve(worker: "Worker", handler: "Handler") -> None:
    loop = asyncio.get_running_loop()
    turns: asyncio.Queue[Run | None] = asyncio.Queue()

    def pass_on() -> None:
        while True:
            run = worker.turns.get()
            loop.call_soon_threadsafe(turns.put_nowait, run)
            if run is None:
                return

    threading.Thread(target=pass_on, name="lobu-worker-turns", daemon=True).start()
    while (run := await turns.get()) is not None:
        await _run(worker, run, handler, loop)


async def _run(worker: "Worker", run: Run, handler: "Handler", loop: asyncio.AbstractEventLoop) -> None:
    changed = asyncio.Event()
    turn = Turn(run, changed)
    task = loop.create_task(_handle_or_leave(worker, run, turn, handler))
    asked_to_cancel = False

    def look() -> None:
        nonlocal asked_to_cancel
        changed.set()
        if run.cancel_reason is not None and not asked_to_cancel:
            asked_to_cancel = True
            task.cancel()

    run.on_change = lambda: loop.call_soon_threadsafe(look)
    look()  # what came before `on_change` was set
    try:
        await task
        ending.complete(run, turn.usage, turn.tool_calls)
    except asyncio.CancelledError as error:
        this_one = asyncio.current_task()
        if this_one is not None and this_one.cancelling():
            raise  # the loop ends
        if asked_to_cancel:
            ending.cancelled(run)
        else:
            ending.failed(run, error)  # the handler cancelled something, and waited for it
    except Disconnected:
        raise
    except Exception as error:
        ending.failed(run, error)
    finally:
        run.on_change = None


async def _handle_or_leave(worker: "Worker", run: Run, turn: Turn, handler: "Handler") -> None:
    try:
        await _handle(run, turn, handler)
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        worker.leaves(error)  # here: the loop, which is about to end, waits for its threads
        raise


async def _handle(run: Run, turn: Turn, handler: "Handler") -> None:
    ending.begin(run)
    result: Any = handler(turn)
    if hasattr(result, "__anext__"):
        try:
            async for piece in result:
                if piece is not None:
                    run.send_text(piece)
        finally:
            await result.aclose()
        return
    text = await result
    if text is not None:
        run.send_text(text)
