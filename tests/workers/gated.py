"""A worker whose turns last until they may end: `gated.py FOLDER`. A message names the file that it waits for there."""

import sys
from collections.abc import Iterator
from pathlib import Path

from lobu_actors.worker import BlockingTurn, serve

WAITS, GOES_ON = "waits ", "and goes on"
POLL_SECONDS = 0.01


def reply(turn: BlockingTurn) -> Iterator[str]:
    yield WAITS
    while not (Path(sys.argv[1]) / turn.content).exists():
        turn.sleep(POLL_SECONDS)
    yield GOES_ON


if __name__ == "__main__":
    serve(reply, name="gated")
