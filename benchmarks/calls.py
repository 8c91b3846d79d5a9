"""How many calls of functions a turn takes in the main process: a count, so the same on every machine.

Nearly all of a turn's CPU there is spent in Python's interpreter, so this is what grows when a turn becomes dearer.
What a host does on its own, once a second, is in it, too: little, as long as turns take milliseconds.

`python -m benchmarks.calls run …` is `lobu run …` that counts from one SIGUSR2 to the next, and writes the number into
a file where it was started.
"""

from __future__ import annotations

import cProfile
import os
import signal
import time

from benchmarks.gate import Gate
from benchmarks.generator import generate
from benchmarks.server import FORKED, own_server
from supervisor.cli.main import main

NAME = "calls of functions a turn, supervisor and edge"
LIMIT = 2_110.0
TURNS = 300
COUNTED = "calls"
COUNT_SECONDS = 10.0


def gate() -> Gate:
    """A warm turn of one conversation, again and again, on a server of its own."""
    with own_server(program="benchmarks.calls") as server:

        def look(said: str) -> None:
            server.signal(signal.SIGUSR2)

        plan = {"conversations": 1, "turns": TURNS, "rate": 0.0, "warm": 2, "content": "hello"}
        generate(server.url, server.key, "turns", look, agent=FORKED, **plan)
        counted, deadline = server.folder / COUNTED, time.monotonic() + COUNT_SECONDS
        while not counted.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"nothing was counted:\n{server.log()[-2000:]}")
            time.sleep(0.01)
        return Gate(NAME, LIMIT, [int(counted.read_text()) / TURNS])


def _count() -> None:
    profile = cProfile.Profile()
    begun = False

    def toggle(*_: object) -> None:
        nonlocal begun
        if not begun:
            begun = True
            profile.enable()
            return
        profile.disable()
        with open(f"{COUNTED}.new", "w") as file:
            file.write(str(sum(entry.callcount for entry in profile.getstats())))
        os.rename(f"{COUNTED}.new", COUNTED)

    signal.signal(signal.SIGUSR2, toggle)


if __name__ == "__main__":
    _count()
    main()
