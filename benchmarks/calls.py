"""How many calls of functions a turn takes in the main process: a count, so the same on every machine.

Nearly all of a turn's CPU there is spent in Python's interpreter, so this is what grows when a turn becomes dearer.
What a host does on its own, once a second, is counted behind the turns and taken off: where the machine has much else
to do, the same turns take ten times as long.

`python -m benchmarks.calls run …` is `lobu run …` that counts from one SIGUSR2 to the next, again and again, and writes
the number into a file where it was started.
"""

from __future__ import annotations

import cProfile
import os
import signal
import time

from benchmarks.gate import Gate
from benchmarks.generator import generate
from benchmarks.server import FORKED, Server, own_server
from supervisor.cli.main import main

NAME = "calls of functions a turn, supervisor and edge"
LIMIT = 2_120.0  # 2,005 to 2,050 where there is little else to do, 1,945 to 2,000 beside four times as much as CPUs
TURNS = 300
OWN_SECONDS = 4.0  # of a host that nobody asks for anything
COUNTED = "calls"
COUNT_SECONDS = 60.0


def gate() -> Gate:
    """A warm turn of one conversation, again and again, on a server of its own."""
    with own_server(program="benchmarks.calls") as server:
        times: list[float] = []

        def look(said: str) -> None:
            server.signal(signal.SIGUSR2)
            times.append(time.perf_counter())

        plan = {"conversations": 1, "turns": TURNS, "rate": 0.0, "warm": 2, "content": "hello"}
        generate(server.url, server.key, "turns", look, agent=FORKED, **plan)
        counted = _counted(server)
        look("begin")
        time.sleep(OWN_SECONDS)
        look("end")
        own = _counted(server)
    begun, ended, own_begun, own_ended = times
    return Gate(NAME, LIMIT, [(counted - own * (ended - begun) / (own_ended - own_begun)) / TURNS])


def _counted(server: Server) -> int:
    file, deadline = server.folder / COUNTED, time.monotonic() + COUNT_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing was counted:\n{server.log()[-2000:]}")
        time.sleep(0.01)
    found = int(file.read_text())
    file.unlink()
    return found


def _count() -> None:
    profile: cProfile.Profile | None = None

    def toggle(*_: object) -> None:
        nonlocal profile
        if profile is None:
            profile = cProfile.Profile()
            profile.enable()
            return
        profile.disable()
        with open(f"{COUNTED}.new", "w") as file:
            file.write(str(sum(entry.callcount for entry in profile.getstats())))
        profile = None
        os.rename(f"{COUNTED}.new", COUNTED)

    signal.signal(signal.SIGUSR2, toggle)


if __name__ == "__main__":
    _count()
    main()
