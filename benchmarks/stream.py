"""A piece of a reply from the worker to each of its readers: latency, throughput, slow readers among them.

The floor is the same load generator at a bare server that writes the same pieces to as many sockets.
"""

from __future__ import annotations

from typing import Any

from benchmarks.generator import bare_server, generate
from benchmarks.histogram import Histogram
from benchmarks.kinds import Bench, Target
from benchmarks.results import Figure, Latency, Result
from benchmarks.terminal import Use

WHAT = "a worker's piece of text to its readers, 1 to 2,000 of them, slow ones among them; pieces a second"
READERS, FEW_READERS = (1, 10, 100, 500, 2000), (1, 20)
SLOW_PART = 10  # one slow reader for so many, from this number on
PIECES, FEW_PIECES = 200, 40
FLOOD, SMALL_FLOOD = 100_000, 5_000  # pieces without a pause
WRITES_A_SECOND = 4_000  # to all readers; more is the generator's limit, not the server's
LEAST_DELAY_MS = 10.0
# More than can be written one by one: what comes while a round over all readers is under way goes out together.
OFTEN = 50.0  # pieces a second
MANY, FEW_MANY = 2000, 50
SECONDS, FEW_SECONDS = 20.0, 1.0


def measure(bench: Bench) -> Result:
    pieces = bench.often(PIECES, FEW_PIECES)
    latencies, figures = [], []
    with bench.target() as target:
        for readers in FEW_READERS if bench.quick else READERS:
            delay = max(LEAST_DELAY_MS, readers / WRITES_A_SECOND * 1e3)
            few = pieces if readers < 500 else max(pieces // 8, 10)
            for slow in (0, readers // SLOW_PART) if readers >= SLOW_PART else (0,):
                bench.progress(f"stream: {readers} readers, {slow} slow ones")
                latencies.append(_paced(target, readers, slow, few, delay))
        many, seconds = (FEW_MANY, FEW_SECONDS) if bench.quick else (MANY, SECONDS)
        bench.progress(f"stream: {many} readers, {OFTEN:g} pieces a second")
        found, more = _often(target, many, int(OFTEN * seconds))
        latencies += found
        figures += more
        bench.progress("stream: throughput")
        figures += _flood(target, SMALL_FLOOD if bench.quick else FLOOD)
    return Result("stream", WHAT, {"pieces": pieces}, latencies, figures)


def _bare(**plan: Any) -> dict[str, Any]:
    with bare_server() as url:
        return generate(url, "", "stream", agent=None, **plan)


def _paced(target: Target, readers: int, slow: int, pieces: int, delay: float) -> Latency:
    plan: dict[str, Any] = {"readers": readers, "slow": slow, "pieces": pieces, "delay_ms": delay}
    before = _bare(**plan)
    use = Use(target.server)
    told = generate(target.url, target.key, "stream", use.look, agent=target.agent, **plan)
    if told["stamps"] != readers * pieces:
        raise RuntimeError(f"{readers} readers of {pieces} pieces had {told['stamps']} of them")
    bare = [Histogram.decode(one["histogram"]).percentile(50) for one in (before, _bare(**plan))]
    figures = {
        "client CPU share": told["client_cpu"],
        "chunks a piece": told["frames"] / told["stamps"],
        **use.per(pieces, "piece"),
    }
    name = f"{readers} readers, a piece each {delay:g} ms" + (f", {slow} slow ones beside" if slow else "")
    return Latency(name, Histogram.decode(told["histogram"]), {"bare server, as many readers": sum(bare) / 2}, figures)


def _often(target: Target, readers: int, pieces: int) -> tuple[list[Latency], list[Figure]]:
    """As many pieces whatever comes of them, and another conversation's turns meanwhile."""
    plan: dict[str, Any] = {"readers": readers, "slow": 0, "pieces": pieces, "delay_ms": 1e3 / OFTEN}
    bare = _bare(**plan)
    use = Use(target.server)
    told = generate(target.url, target.key, "stream", use.look, agent=target.agent, beside=True, **plan)
    if told["complete"] != readers or told["began_anew"]:
        raise RuntimeError(
            f"of {readers} readers, {told['complete']} had every byte of the reply, and {told['began_anew']} began anew"
        )
    share = {"client CPU share": told["client_cpu"], "seconds": told["wall"]}
    figures = {**share, "chunks a piece": told["frames"] / told["stamps"], **use.per(pieces, "piece")}
    name = f"{readers} readers, {OFTEN:g} pieces a second"
    beside = {"bare server, as many readers": Histogram.decode(bare["histogram"]).percentile(50)}
    latency = Latency(name, Histogram.decode(told["histogram"]), beside, figures)
    turns = Histogram.decode(told["beside"])
    return [latency], [
        Figure(f"{name}, pieces read a second", told["stamps"] / told["wall"], "1/s", more_is_better=True),
        Figure(f"{name}, with every byte of the reply", told["complete"], "readers"),
        Figure(f"{name}, another conversation's turn meanwhile, p50", turns.percentile(50) * 1e3, "ms"),
        Figure(f"{name}, another conversation's turn meanwhile, p99", turns.percentile(99) * 1e3, "ms"),
    ]


def _flood(target: Target, pieces: int) -> list[Figure]:
    """One reader, and a worker that goes as fast as it can."""
    plan: dict[str, Any] = {"readers": 1, "slow": 0, "pieces": pieces, "delay_ms": 0.0}
    bare = _bare(**plan)
    told = generate(target.url, target.key, "stream", agent=target.agent, **plan)
    return [
        Figure("one reader, pieces a second", pieces / told["wall"], "1/s", pieces / bare["wall"], more_is_better=True),
        Figure("one reader, pieces a chunk", told["stamps"] / max(told["frames"], 1), ""),
        Figure("client CPU share", told["client_cpu"], ""),
    ]
