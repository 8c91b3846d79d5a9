"""Faults that overlap while clients do everything, for as long as a test may take."""

from __future__ import annotations

from tests.overlap.__main__ import Options, overlap


async def test_every_promise_is_kept_while_faults_overlap() -> None:
    """Round 1: the database crashes, a supervisor dies, a spawner stands still, workers die."""
    report = await overlap(Options(seed=3, first=1, rounds=1, talks=5, longest_seconds=4))
    assert report.faults == []
    assert report.rounds == 1
    assert report.caused.total() >= 3, report
    assert report.ends["complete"] > 0, report
