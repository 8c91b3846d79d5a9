"""The races of stale writers, for as long as a test may take."""

from __future__ import annotations

import re
from importlib.resources import files

from tests.stale_lanes import WAYS
from tests.stale_writers import Options, race
from tests.stale_writes import KINDS, READS, SINGLETON_KINDS

GUARDED = re.compile(r"^-- name: (\w+_(?:if_lease_held|if_held))$", re.MULTILINE)


def test_every_guarded_statement_takes_part() -> None:
    queries = files("lobu_actors.store").joinpath("queries")
    there = {name for entry in queries.iterdir() for name in GUARDED.findall(entry.read_text())}
    raced = {name for kind in KINDS for name in kind.statements} | {kind.statement for kind in SINGLETON_KINDS}
    assert there - set(READS) == raced


async def test_no_write_of_an_owner_that_was_paused_is_accepted(database_url: str) -> None:
    report = await race(Options(races=500), database_url)
    assert report.faults == []
    assert report.tally.accepted == 0
    assert report.tally.races >= 500
    assert report.tally.refused.keys() == {kind.name for kind in (*KINDS, *SINGLETON_KINDS)}
    assert report.tally.ways.keys() == set(WAYS)
