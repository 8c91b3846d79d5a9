"""Reconnect storms: all readers are cut at once and come back, each to read the last reply's end again."""

from __future__ import annotations

from typing import Any

from benchmarks.generator import bare_server, generate
from benchmarks.histogram import Histogram
from benchmarks.kinds import Bench
from benchmarks.results import Latency, Result
from benchmarks.terminal import Use

WHAT = "reconnect storm: readers that come back at once, to the event that each lacks"
READERS, FEW_READERS = (1, 100, 500, 2000), (1, 20)
EACH = 5  # readers of one conversation
ROUNDS, FEW_ROUNDS = 5, 2


def measure(bench: Bench) -> Result:
    rounds = bench.often(ROUNDS, FEW_ROUNDS)
    found = []
    with bench.target() as target:
        for readers in FEW_READERS if bench.quick else READERS:
            bench.progress(f"resume: {readers} readers")
            plan = {"readers": readers, "readers_each": EACH, "rounds": rounds}
            before, use = _bare(**plan), Use(target.server)
            told = generate(target.url, target.key, "resume", use.look, agent=target.agent, **plan)
            bare = [Histogram.decode(one["histogram"]).percentile(50) for one in (before, _bare(**plan))]
            figures = {
                "client CPU share": told["client_cpu"],
                "readers a second": readers * rounds / told["wall"],
                **use.per(readers * rounds, "reader"),
            }
            floor = {"bare server, as many readers": sum(bare) / 2}
            found.append(Latency(f"{readers} at once", Histogram.decode(told["histogram"]), floor, figures))
    return Result("resume", WHAT, {"rounds": rounds, "readers_each": EACH}, found)


def _bare(**plan: Any) -> dict[str, Any]:
    with bare_server() as url:
        return generate(url, "", "resume", agent=None, **plan)
