"""A worker that leaves a trace of every moment at which it acts.

`work SECONDS NAME` appends the monotonic clock, which is one for all processes of a machine, to the file
`stamps-NAME-PID` of its workspace: once when it comes, and each 20 ms from when there is a file `go` beside it, for so
long by its own count of steps. Anything else comes back at once.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from lobu_actors.worker import BlockingTurn, serve

STEP_SECONDS = 0.02
GO = "go"


def reply(turn: BlockingTurn) -> Iterator[str]:
    verb, *words = turn.content.split() or [""]
    if verb != "work":
        yield turn.content
        return
    path = Path(os.environ["WORKSPACE_DIR"]) / f"stamps-{words[1]}-{os.getpid()}"
    with path.open("a", buffering=1) as file:
        file.write(f"{time.monotonic()}\n")
        while not path.with_name(GO).exists():
            turn.sleep(STEP_SECONDS)
        for number in range(round(float(words[0]) / STEP_SECONDS)):
            file.write(f"{time.monotonic()}\n")
            if number % 5 == 0:
                yield f"step{number} "
            turn.sleep(STEP_SECONDS)


if __name__ == "__main__":
    serve(reply, name="stamping")
