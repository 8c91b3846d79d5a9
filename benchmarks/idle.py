"""What stands still and still occupies memory: a conversation, an actor, a stream, a worker.

Of the process that has supervisor and edge, the growth of its own memory (USS) divided by the number of what was added;
of workers, the own memory of each.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.generator import generate
from benchmarks.kinds import Bench
from benchmarks.results import Figure, Result
from benchmarks.server import EXECUTED, FORKED, own_server

WHAT = "memory of an idle conversation, an idle stream, an active actor, an idle worker"
WORKERS, FEW_WORKERS = 200, 5
OTHERS, FEW_OTHERS = 2000, 40  # of what has no worker
WARM_UP = 3


def measure(bench: Bench) -> Result:
    bench.own_only("idle")
    workers, others = (FEW_WORKERS, FEW_OTHERS) if bench.quick else (WORKERS, OTHERS)
    bench.progress("idle: conversations")
    conversation, _ = _held(others, FORKED, reads=False, content="")
    bench.progress("idle: streams")
    stream, _ = _held(others, FORKED, reads=True, content="")
    bench.progress("idle: actors with forked workers")
    actor, forked = _held(workers, FORKED, reads=False, content="hello", keep=True)
    bench.progress("idle: executed workers")
    _, executed = _held(FEW_WORKERS, EXECUTED, reads=False, content="hello", keep=True)
    figures = [
        Figure("idle conversation", conversation / 1e3, "kB"),
        Figure("idle conversation with an open stream", stream / 1e3, "kB"),
        Figure("active actor, its worker's connection included", actor / 1e3, "kB"),
        Figure("idle worker, forked from a zygote", median(forked) / 1e6, "MB"),
        Figure("idle worker, executed", median(executed) / 1e6, "MB"),
    ]
    return Result("idle", WHAT, {"others": others, "workers": workers}, (), figures)


def _held(number: int, agent: str, *, reads: bool, content: str, keep: bool = False) -> tuple[float, list[int]]:
    """Bytes that the main process grew by for each of `number`, and what each worker has of its own."""
    own: list[int] = []
    workers: list[int] = []
    plan: dict[str, Any] = {"agent": agent, "reads": reads or keep, "content": content}
    with own_server() as server:

        def look(said: str) -> None:
            own.extend(server.own_memory("main"))
            if said == "end":
                workers.extend(server.own_memory("workers"))

        generate(server.url, server.key, "hold", conversations=WARM_UP, **plan)
        generate(server.url, server.key, "hold", look, conversations=number, **plan)
    return (own[1] - own[0]) / number, workers
