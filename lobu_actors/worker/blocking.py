"""Runs plain functions and generators, one turn after another, on the main thread.

Owns how a cancellation reaches blocking code: at a generator's next `yield`, and where the turn itself waits.
"""

from typing import TYPE_CHECKING

from lobu_actors.worker import ending
from lobu_actors.worker.channel import Disconnected
from lobu_actors.worker.turn import BlockingTurn, Cancelled, Run

if TYPE_CHECKING:
    from lobu_actors.worker.serve import Handler, Worker


def run_turns(worker: "Worker", handler: "Handler") -> None:
    while (run := worker.turns.get()) is not None:
        _run(worker, run, handler)


def _run(worker: "Worker", run: Run, handler: "Handler") -> None:
    turn = BlockingTurn(run)
    try:
        ending.begin(run)
        result = handler(turn)
        if hasattr(result, "send") and hasattr(result, "close"):
            result = _drain(run, result)
        if result is not None:
            run.send_text(result)
        ending.complete(run, turn.usage, turn.tool_calls)
    except Cancelled:
        ending.cancelled(run)
    except Disconnected:
        raise
    except Exception as error:
        ending.failed(run, error)
    except BaseException as error:
        worker.leaves(error)
        raise


def _drain(run: Run, generator: object) -> object:
    pieces = iter(generator)  # type: ignore[call-overload]
    while True:
        if run.cancel_reason is not None:
            generator.close()  # type: ignore[attr-defined]
            raise Cancelled
        try:
            piece = next(pieces)
        except StopIteration as stop:
            return stop.value
        if piece is not None:
            run.send_text(piece)
