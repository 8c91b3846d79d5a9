"""Every attack of `tests.hostile_attacks`, once: its turn ends as it should, nothing is left, its neighbours go on.

How much they are slowed is measured by `python -m tests.hostile_workers`: on a machine that is
busy with other tests it means nothing.
"""

from __future__ import annotations

import os
from itertools import groupby

import pytest
import trio

from tests.hostile_attacks import ATTACKS
from tests.hostile_workers import NEIGHBOURS, Neighbours, attacked, audited, hostile_run

GROUPS = {name: tuple(found) for name, found in groupby(ATTACKS, lambda attack: attack.group)}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for workers with users of their own")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("group", GROUPS)
async def test_a_hostile_worker_is_bounded_and_leaves_nothing(group: str, database_url: str) -> None:
    problems: list[str] = []
    async with hostile_run(database_url) as run, trio.open_nursery() as nursery:
        neighbours = Neighbours(run)
        nursery.start_soon(neighbours.talk)
        for attack in GROUPS[group]:
            turns = neighbours.turns
            while neighbours.turns < turns + 3 * NEIGHBOURS:  # noqa: ASYNC110 - the nursery has their failures
                await trio.sleep(0.01)
            outcome = await attacked(run, attack, neighbours, quiet=0, seconds=0)
            problems += [f"{attack.habit}: {problem}" for problem in outcome.problems]
        problems += await audited(run)
        nursery.cancel_scope.cancel()
    assert problems == []
