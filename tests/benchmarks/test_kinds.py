"""A short form of each kind, as an operator would run it: figures are there and make sense. No time is asserted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.hosts import PIECES
from benchmarks.kinds import KINDS
from benchmarks.results import Run
from tests.benchmarks.lobu_bench import bench

# What each kind must have measured: a part of each name.
LATENCIES = {
    "terminal": ("warm, one after another", "warm, 1 at once", "warm, 10 at once", "cold, zygote", "cold, exec"),
    "crash": ("zygote", "exec", "10 other turns running"),
    "hang": ("STARTUP", "UNRESPONSIVE", "FIRST_OUTPUT", "PROGRESS", "TOOL", "QUESTION", "TURN"),
    "failover": ("killed, to its new begin", "killed, to its end", "paused, to its", "cut off, to its"),
    "restart": ("killed", "drained"),
    "stream": ("1 readers", "20 readers", "slow ones beside", "50 readers, 50 pieces a second"),
    "accept": ("accept",),
    "spawn": ("zygote", "exec"),
    "idle": (),
    "snapshot": ("first half", "second half"),
    "resume": ("1 at once", "20 at once"),
    "hosts": ("read at the owner", "read at another host", "a piece, later", "a terminal event, later", "3 hosts"),
    "looked-at": ("16 conversations",),
    "filled": ("start, 100", "start, 2,000", "warm turn, 2,000", "resume, 2,000", "look, 2,000", "accept, 2,000"),
}
LONG_ONES = frozenset({"hang", "failover", "restart", "idle", "hosts", "looked-at", "filled"})  # 16 to 50 s each
FIGURES = {
    "hang": ("TURN_TIMEOUT, beyond",),
    "failover": ("killed, to its new begin, beyond",),
    "hosts": (
        "turns a second, 1 hosts",
        "turns a second, 2 hosts",
        "turns a second, 3 hosts",
        "commits of 3 idle hosts",
    ),
    "stream": ("pieces a second", "with every byte of the reply", "another conversation's turn meanwhile, p99"),
    "looked-at": ("nobody looks", "somebody looks", "fall of throughput", "looks"),
    "filled": ("start, p50 with 2,000", "warm turn, p50 with 2,000", "all that was owed has ended after"),
    "accept": ("durable accepts a second",),
    "spawn": ("own memory, idle, zygote", "at once, all ready after"),
    "idle": ("opened", "hibernated", "open stream", "active actor", "worker, forked", "worker, executed"),
    "snapshot": ("bytes of the segment", "write-ahead log", "hydrate"),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in LONG_ONES)) for kind in LATENCIES]
)
def test_a_kind_in_its_short_form(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    shown = bench(kind, "--quick", "--output", str(file)).stdout
    assert shown.startswith(f"{kind}: ")
    [result] = Run.read(file).results
    for part in LATENCIES[kind]:
        assert any(part in latency.name for latency in result.latencies), (part, shown)
    for latency in result.latencies:
        assert len(latency.histogram) > 0
        assert 0 < latency.histogram.percentile(50) <= latency.histogram.percentile(99) <= latency.histogram.most
        assert latency.floor, latency.name
        assert all(seconds > 0 for seconds in latency.floor.values()), latency
        assert latency.name in shown
        assert latency.figures.get("client CPU share", 0.0) < 1.5, "of one CPU; else it measures itself"
    names = {figure.name: figure for figure in result.figures}
    for part in FIGURES.get(kind, ()):
        assert any(part in name for name in names), (part, shown)
    assert all(figure.value > 0 for figure in result.figures if figure.unit in ("1/s", "s", "MB")), names
    check = CHECKS.get(kind)
    if check is not None:
        check(result)


def _terminal(result: Any) -> None:
    for latency in result.latencies[:3]:
        assert {"CPU ms a turn", "CPU ms a turn, main", "CPU ms a turn, postgres"} <= latency.figures.keys()
        assert len(latency.histogram) == result.settings["turns"]


def _snapshot(result: Any) -> None:
    grown = next(figure for figure in result.figures if figure.name == "last to first turn, bytes of the segment")
    assert 0.8 < grown.value < 1.2, "bytes a turn do not grow with the session"
    assert len(result.curves) == 2


def _hang(result: Any) -> None:
    for latency in result.latencies:
        assert latency.histogram.percentile(50) >= result.settings["deadline_seconds"] * 0.9, latency.name


def _failover(result: Any) -> None:
    for latency in result.latencies[2:]:  # a host that was killed is known to be gone before
        assert latency.histogram.percentile(50) >= latency.floor["rest of the lease"] * 0.9, latency.name


def _hosts(result: Any) -> None:
    pieces, ends = result.latencies[2:4]
    assert len(pieces.histogram) == 2 * PIECES, "one reply posted at each of two hosts, each piece read at both"
    assert len(ends.histogram) == 2 * result.settings["turns"]
    for latency in result.latencies[4:]:
        assert 2.5 < latency.figures["commits a turn"] < 4, "each is one write to the disk: accept, start, end"


def _looked_at(result: Any) -> None:
    found = {figure.name: figure.value for figure in result.figures}
    assert found["looks"] >= 1, "somebody did look"
    assert found["bytes a look"] > 1000


CHECKS = {
    "terminal": _terminal,
    "looked-at": _looked_at,
    "snapshot": _snapshot,
    "hang": _hang,
    "failover": _failover,
    "hosts": _hosts,
}


def test_every_kind_that_is_registered_loads() -> None:
    help_text = bench("--help").stdout
    assert all(f"\n  {kind} " in help_text for kind in KINDS)
