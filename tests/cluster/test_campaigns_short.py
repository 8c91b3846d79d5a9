"""The campaigns of several hosts with their own networks, for as long as a test may take."""

from __future__ import annotations

import pytest
import trio

from tests.cluster.network import Direction
from tests.cluster.partitions import PARTS, partition
from tests.cluster.partitions import Options as PartitionOptions
from tests.cluster.takeover import Options, Report, take_over

LEASE_SECONDS = 40.0
LONG_LEASE = f"host_ttl_seconds = {LEASE_SECONDS}"
GENEROUS = {"killed": LEASE_SECONDS / 2, "cut": 60.0, "paused": 60.0}  # a killed host's lease is not waited for


@pytest.mark.timeout(300)
async def test_a_host_that_is_killed_cut_off_or_paused_is_taken_over_from() -> None:
    reports: dict[str, Report] = {}

    async def one(kind: str) -> None:
        limits = LONG_LEASE if kind == "killed" else ""
        reports[kind] = await take_over(Options(kind, times=1, limits=limits, bound_seconds=200))

    async with trio.open_nursery() as nursery:
        for kind in GENEROUS:
            nursery.start_soon(one, kind)
    for kind, report in reports.items():
        print(f"{kind}: {[round(seconds, 2) for seconds in report.restarts]} s to the client's `restart`")
        assert report.faults == []
        assert len(report.restarts) == 1
        assert max(report.restarts) < GENEROUS[kind], kind
    [restart], [lease] = reports["cut"].restarts, reports["cut"].leases
    assert restart >= lease, "the cable was cut: nothing proves a host's end but its lease"


async def test_a_host_that_hears_nobody_costs_no_client_anything() -> None:
    """What it writes arrives, and it never hears so; for longer than its lease."""
    part = PARTS.index(("both", Direction.IN))
    report = await partition(PartitionOptions(rounds=1, first=part, cut_seconds=(8.0,)))
    assert report.faults == []
    assert report.rounds == 1
    assert report.meanwhile > 0, "the other hosts worked on"
