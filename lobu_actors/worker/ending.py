"""How a run begins and ends on the wire, whatever kind of handler it had.

Owns the order at the end: the session file is written and closed before `complete` is sent.
"""

import traceback
from collections.abc import Sequence
from typing import Any

from lobu_actors.worker.channel import Wire
from lobu_actors.worker.session import text_of
from lobu_actors.worker.turn import PIECE_CHARS, Fail, Run, objects

CANCELLED = "CANCELLED"
FAILED = "WORKER_FAILED"


def begin(run: Run) -> None:
    """Put the user's messages into the session file. Raises OSError."""
    if run.session is None:
        return
    messages = run.frame["messages"]
    texts = [text_of(message.get("content")) for message in messages if message.get("onlyResults") is not True]
    results = [result for message in messages for result in objects(message.get("toolResults"))]
    carried = messages[0].get("history") if messages else None
    run.begun = run.session.begin(texts, again=run.frame["attempt"] > 1, carried=carried, results=results)


def complete(run: Run, usage: dict[str, Any] | None, tool_calls: Sequence[dict[str, str]] = ()) -> None:
    """Put the reply into the session file, then report it. Raises OSError and TypeError, with nothing reported."""
    if usage is not None and not isinstance(usage, dict):
        raise TypeError(f"usage is a dict, not {type(usage).__name__}")
    if not all(isinstance(call.get(name), str) for call in tool_calls for name in ("id", "name", "arguments")):
        raise TypeError("a call has an id, a name and arguments, each a str")
    if run.session is not None:
        model = run.hello["settings"].get("model")
        text = "".join(run.text)[run.recorded_chars :]
        run.session.finish(text, model if isinstance(model, str) else "", usage, run.recorded, run.kept)
    frame: Wire = {"type": "complete", "runId": run.run_id, "processedMessageIds": list(run.processed)}
    if usage is not None:
        frame["usage"] = usage
    if tool_calls:
        frame["toolCalls"] = list(tool_calls)
    run.end(frame)


def cancelled(run: Run) -> None:
    """Report that the handler stopped because it was told to."""
    message = f"The turn was cancelled: {run.cancel_reason}." if run.cancel_reason else "The turn was cancelled."
    run.end({"type": "fail", "runId": run.run_id, "code": CANCELLED, "message": message})


def failed(run: Run, error: BaseException) -> None:
    """`Fail` as it says; anything else as WORKER_FAILED, with its traceback on stderr, which is the log.

    What is alone in its group, as what fails in a group of tasks is, counts as itself.
    """
    sole = error
    while isinstance(sole, BaseExceptionGroup) and len(sole.exceptions) == 1:
        sole = sole.exceptions[0]
    frame: Wire = {"type": "fail", "runId": run.run_id}
    if not isinstance(sole, Fail):
        traceback.print_exception(error)
        run.end(frame | {"code": FAILED, "message": _told(sole)})
        return
    frame |= {"code": sole.code, "message": sole.message[:PIECE_CHARS]}
    if sole.retryable is not None:
        frame["retryable"] = sole.retryable
    if sole.context is None:
        run.end(frame)
        return
    try:
        run.end(frame | {"context": sole.context})
    except (TypeError, ValueError, RecursionError) as unfit:  # it is no JSON, or over the limit
        traceback.print_exception(unfit)
        run.end(frame)


def _told(error: BaseException) -> str:
    """Its name and text. The text is the code's of whoever wrote it: it may be missing, of any size, or fail itself."""
    try:
        text = str(error)[:PIECE_CHARS]
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
