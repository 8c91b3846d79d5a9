"""The soak, for as long as a test may take."""

from __future__ import annotations

from tests.soak import Options, soak


async def test_every_promise_is_kept_while_workers_die() -> None:
    options = Options(
        turns=150, conversations=12, clients=8, kill_every_seconds=0.05, turns_between_kills=3, bound_seconds=120
    )
    report = await soak(options)
    assert report.broken(options) == []
    assert report.worker_kills > 10
    assert report.failed.get("WORKER_CRASHED", 0) > 0, f"no kill hit a turn: {report}"
    assert report.completed > 75, report


async def test_every_promise_is_kept_while_hosts_and_what_they_consist_of_die() -> None:
    options = Options(
        turns=120,
        conversations=12,
        clients=8,
        kill_every_seconds=0.2,
        turns_between_kills=4,
        least_host_kills=4,
        host_kill_every_seconds=0.2,
        bound_seconds=120,
        hosts=3,
    )
    report = await soak(options)
    assert report.broken(options) == []
    assert sum(report.host_kills.values()) >= 4, report
    assert report.completed > 60, report
