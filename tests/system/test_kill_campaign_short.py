"""A short form of `make kill-campaign`: whatever is killed, nothing is left behind."""

from tests.kill_campaign import Options, campaign


async def test_fifty_runs_leave_nothing_behind() -> None:
    report = await campaign(Options(runs=50, conversations=12, clients=8, bound_seconds=120))
    assert report.faults == []
    assert report.accepted == 50
    assert report.kills
