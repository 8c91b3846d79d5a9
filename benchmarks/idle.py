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
from benchmarks.server import AGENTS, EXECUTED, FORKED, LIMITS, own_server

WHAT = "memory of an idle conversation, an idle stream, an active actor, an idle worker"
WORKERS, FEW_WORKERS = 200, 5
OTHERS, FEW_OTHERS = 2000, 40  # of what has no worker
HIBERNATED, FEW_HIBERNATED = 1000, 20
WARM_UP = 64  # until connections and pools are there, which are nobody's
SOON = "worker_idle_seconds = 1\n"
ASLEEP_SECONDS = 4.0  # by then, those are


def measure(bench: Bench) -> Result:
    bench.own_only("idle")
    workers, others = (FEW_WORKERS, FEW_OTHERS) if bench.quick else (WORKERS, OTHERS)
    hibernated = FEW_HIBERNATED if bench.quick else HIBERNATED
    bench.progress("idle: conversations")
    conversation, _ = _held(others, FORKED, others, reads=False, content="")
    bench.progress("idle: hibernated conversations")
    asleep, _ = _held(
        hibernated, FORKED, hibernated, reads=False, content="hello", limits=SOON, rest_seconds=ASLEEP_SECONDS
    )
    bench.progress("idle: streams")
    stream, _ = _held(others, FORKED, reads=True, content="")
    bench.progress("idle: actors with forked workers")
    actor, forked = _held(workers, FORKED, reads=False, content="hello")
    bench.progress("idle: executed workers")
    _, executed = _held(FEW_WORKERS, EXECUTED, reads=False, content="hello")
    figures = [
        Figure("idle conversation, opened", conversation / 1e3, "kB"),
        Figure("idle conversation, hibernated after a turn", asleep / 1e3, "kB"),
        Figure("idle conversation with an open stream", stream / 1e3, "kB"),
        Figure("active actor, its worker's connection included", actor / 1e3, "kB"),
        Figure("idle worker, forked from a zygote", median(forked) / 1e6, "MB"),
        Figure("idle worker, executed", median(executed) / 1e6, "MB"),
    ]
    settings = {"others": others, "hibernated": hibernated, "workers": workers}
    return Result("idle", WHAT, settings, (), figures)


def _held(
    number: int,
    agent: str,
    warm_up: int = WARM_UP,
    *,
    reads: bool,
    content: str,
    limits: str = "",
    rest_seconds: float = 0.5,
) -> tuple[float, list[int]]:
    """Bytes that the main process grew by for each of `number`, and what each worker has of its own. The connections
    that messages were posted on are closed. `warm_up`: as many of what ends go ahead of it, since an allocator keeps
    what was once needed at the same time."""
    own: list[int] = []
    workers: list[int] = []
    plan: dict[str, Any] = {"agent": agent, "reads": reads, "content": content, "posters": False}
    with own_server(LIMITS + limits + AGENTS) as server:

        def look(said: str) -> None:
            own.extend(server.own_memory("main"))
            if said == "end":
                workers.extend(server.own_memory("workers"))

        generate(server.url, server.key, "hold", conversations=min(number, warm_up), rest_seconds=rest_seconds, **plan)
        generate(server.url, server.key, "hold", look, conversations=number, rest_seconds=rest_seconds, **plan)
    return (own[1] - own[0]) / number, workers
