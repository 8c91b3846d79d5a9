"""A short form of `make kill-campaign`: whatever is killed, nothing is left behind."""

from tests.kill_campaign import TARGETS, Options, campaign

SEED = 26  # of which each target is among the first kills


async def test_fifty_runs_leave_nothing_behind() -> None:
    options = Options(runs=50, conversations=12, clients=8, kill_every_seconds=0.2, bound_seconds=120, seed=SEED)
    report = await campaign(options)
    assert report.faults == []
    assert report.accepted >= 50
    assert set(report.kills) == set(TARGETS)
