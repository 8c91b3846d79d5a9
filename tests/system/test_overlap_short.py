"""Faults that overlap while clients do everything, for as long as a test may take."""

from __future__ import annotations

from tests.overlap.__main__ import Options, overlap


async def test_every_promise_is_kept_while_faults_overlap() -> None:
    """Round 1: a machine that lends workers drains, the database crashes, workers die, one pauses in its drain."""
    report = await overlap(
        Options(seed=306, first=1, rounds=1, talks=4, machines=1, lent=1, others=2, longest_seconds=4)
    )
    assert report.faults == []
    assert report.rounds == 1
    assert report.caused.total() >= 3, report
    assert report.ends["complete"] > 0, report
    assert report.others.total() > 0, report
