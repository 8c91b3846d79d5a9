"""Our worker on the rivals' work: what `worker.py` does, with our SDK."""

import os
from collections.abc import Iterator

from lobu_actors.agents import echo
from lobu_actors.worker import BlockingTurn, serve


def reply(turn: BlockingTurn) -> Iterator[str]:
    first, *words = turn.content.split() or [""]
    if first == "runs":
        with open(words[0], "a") as file:
            file.write(f"{os.getpid()}\n")
        turn.sleep(float(words[1]))
        yield "waited"
    else:
        yield from echo.reply(turn)


if __name__ == "__main__":
    serve(reply, name="rivals")
