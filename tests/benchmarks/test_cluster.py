"""What the hosts' benchmark derives from what it read."""

from __future__ import annotations

from benchmarks.cluster import Spent


def test_a_turn_is_not_charged_for_what_idle_hosts_do() -> None:
    idle = Spent(seconds=10, transactions=150, commits=20, wal_bytes=26_000)
    busy = Spent(seconds=20, transactions=600, commits=340, wal_bytes=552_000)
    assert busy.per_turn(idle, 100) == {"transactions": 3.0, "commits": 3.0, "wal_bytes": 5000}
    assert idle.per_second() == {"transactions": 15.0, "commits": 2.0, "wal_bytes": 2600}
