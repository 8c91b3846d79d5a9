"""The store in memory is the store in Postgres: the same operations give the same answers and leave the same state.

LOBU_TWIN_EXAMPLES sets the number of generated lists; the default is for every run, thousands are for a soak.
"""

from __future__ import annotations

import itertools
import os

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.postgres import PostgresStore
from tests.properties.twin_stores import OPERATIONS, Difference, Operation, Twins

EXAMPLES = int(os.environ.get("LOBU_TWIN_EXAMPLES", "60"))
LONGEST = 40

# What a conversation consists of comes more often than what happens now and then.
_OFTEN = ("accept", "start", "finish", "again")
_NAMES = (*OPERATIONS, *_OFTEN, *_OFTEN)
_SMALL = st.sampled_from((0, 0, 0, 1, 2, 3))

operations = st.lists(st.tuples(st.sampled_from(_NAMES), _SMALL, _SMALL, _SMALL), max_size=LONGEST)
_numbers = itertools.count(1)


async def run_both(database_url: str, performed: list[Operation]) -> None:
    postgres = PostgresStore.connect(database_url)
    try:
        twins = Twins((("memory", MemoryStore()), ("postgres", postgres)), f"o{next(_numbers)}")
        await twins.begin()
        for operation in performed:
            await twins.perform(operation)
        await twins.compare_all()
    finally:
        postgres.close()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(performed=operations)
@example(performed=[("accept", 0, 0, 0), ("start", 0, 0, 0), ("finish", 0, 0, 0), ("again", 0, 0, 0)])
def test_the_same_operations_give_the_same_answers(database_url: str, performed: list[Operation]) -> None:
    """One database for all examples; each has an organization of its own."""
    trio.run(run_both, database_url, performed)


@pytest.mark.parametrize("method", ["finish_run", "requeue_run", "accept_turn", "join_run", "close_conversation"])
def test_a_store_that_differs_is_found_out(database_url: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these writes, left out of one store, is noticed by a short list that uses it."""

    async def nothing(self: MemoryStore, *arguments: object, **named: object) -> None:
        return None

    monkeypatch.setattr(MemoryStore, method, nothing)
    life: list[Operation] = [
        ("accept", 0, 0, 0),
        ("start", 0, 0, 0),
        ("accept", 0, 0, 0),
        ("join", 0, 0, 0),
        ("requeue", 0, 0, 0),
        ("start", 0, 0, 0),
        ("finish", 0, 0, 0),
        ("finish_some", 0, 0, 3),
        ("close", 0, 0, 0),
    ]
    with pytest.raises(Difference, match=method):
        trio.run(run_both, database_url, life)
