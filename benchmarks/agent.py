"""The worker that is measured with: the echo worker, and a word for what only a benchmark asks.

- `stamp N DELAY_MS`: N pieces, each the time at which it was made, in nanoseconds of the machine's monotonic clock
- `tool`: says that a tool is at work, and then nothing more
"""

import time
from collections.abc import Iterator

from lobu_actors.agents import echo
from lobu_actors.worker import BlockingTurn, serve


def reply(turn: BlockingTurn) -> Iterator[str]:
    first, *words = turn.content.split() or [""]
    if first == "stamp":
        yield from _stamp(int(words[0]), float(words[1]) / 1e3)
    elif first == "tool":
        turn.status("working", phase="tool", tool="bench")
        turn.sleep(1000)
    else:
        yield from echo.reply(turn)


def _stamp(pieces: int, delay: float) -> Iterator[str]:
    due = time.perf_counter()
    for _ in range(pieces):
        if delay:
            due += delay
            time.sleep(max(due - time.perf_counter(), 0.0))
        yield f"{time.perf_counter_ns()} "


if __name__ == "__main__":
    serve(reply, name="bench")
