"""The database away under load, for as long as a test may take: longer than a lease, on two hosts."""

from __future__ import annotations

from tests.database_away import TTL_SECONDS, Options, be_away


async def test_nothing_fails_and_nothing_runs_twice_of_it() -> None:
    """Of a crash, the harder case: who comes back first finds the others expired."""
    options = Options(seconds=[TTL_SECONDS + 2], hosts=3, running=9, queued=1, how=["gone"])
    [outage] = await be_away(options)
    assert outage.faults == []
    assert outage.completed == 2 * options.running
    assert max(outage.acted_until) > 1, "they work while their host is trusted"
    assert len(outage.acted_again) == options.running, "each goes on behind it"
