"""Two hosts are restarted one after the other under clients that stream, once."""

from __future__ import annotations

from tests.rolling_hosts import Options, roll


async def test_nothing_is_refused_or_cut_and_every_turn_completes() -> None:
    report = await roll(Options(rounds=1, clients=8, hosts=2))
    # How soon readers resume is a figure of the machine; the command asserts it.
    assert [fault for fault in report.faults if "at p99" not in fault] == []
    assert report.restarts == 2
    assert report.ends.keys() == {"complete"}
    assert report.resumes, "no reader lost its stream"
