"""The races of stale writers, for as long as a test may take."""

from __future__ import annotations

from lobu_actors.store.queries import query_names
from tests.stale_lanes import WAYS
from tests.stale_writers import Options, race
from tests.stale_writes import KINDS, READS, SINGLETON_KINDS


def test_every_guarded_statement_takes_part() -> None:
    there = {name for name in query_names() if name.endswith(("_if_lease_held", "_if_held"))}
    raced = {name for kind in KINDS for name in kind.statements} | {kind.statement for kind in SINGLETON_KINDS}
    assert there - set(READS) == raced


async def test_no_write_of_an_owner_that_was_paused_is_accepted(database_url: str) -> None:
    report = await race(Options(races=500), database_url)
    assert report.faults == []
    assert report.tally.accepted == 0
    assert report.tally.races >= 500
    assert report.tally.refused.keys() == {kind.name for kind in (*KINDS, *SINGLETON_KINDS)}
    assert report.tally.ways.keys() == set(WAYS)
