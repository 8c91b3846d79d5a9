"""Good and bad manners in one worker: what `lobu_actors.agents.echo` does, and files, steering and forged frames.

- `copy`: each file of input/ into output/; replies with name and SHA-256 of each, as JSON
- `forge`: frames for runs that are not its own, between two halves of its reply
- what steers it is told at the end, in brackets

Each moment at which it acts is a line of the file `stamps-MESSAGE-PID` in its workspace, by the monotonic clock, which
is one for all processes of a machine.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from lobu_actors.agents import echo
from lobu_actors.worker import BlockingTurn, serve

FORGED = ("delta", "complete", "fail", "ask", "ephemeral", "status")


def _copy(turn: BlockingTurn) -> Iterator[str]:
    found = {}
    for path in sorted((Path(turn.workspace) / "input").iterdir()):
        shutil.copyfile(path, Path(turn.workspace) / "output" / path.name)
        found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    yield json.dumps(found)


def _forge() -> Iterator[str]:
    yield "for"
    frames = [
        {
            "type": kind,
            "runId": "another",
            "text": "FORGED",
            "code": "FORGED",
            "message": "FORGED",
            "questionId": "q",
            "prompt": "FORGED?",
            "status": "FORGED",
        }
        for kind in FORGED
    ]
    os.write(int(os.environ["LOBU_WORKER_FD"]), b"".join(json.dumps(frame).encode() + b"\n" for frame in frames))
    yield "ged"


def reply(turn: BlockingTurn) -> Iterator[str]:
    path = Path(turn.workspace) / f"stamps-{turn.messages[0]['messageId']}-{os.getpid()}"
    with path.open("a", buffering=1) as file:
        for piece in _pieces(turn):
            file.write(f"{time.monotonic()}\n")
            yield piece


def _pieces(turn: BlockingTurn) -> Iterator[str]:
    first = (turn.content.split() or [""])[0]
    if first == "copy":
        yield from _copy(turn)
    elif first == "forge":
        yield from _forge()
    else:
        yield from echo.reply(turn)
    for steer in turn.take_steers():
        yield f" [{steer.content}]"


if __name__ == "__main__":
    serve(reply, name="all-manners", steer=True)
