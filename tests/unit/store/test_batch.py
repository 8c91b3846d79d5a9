"""Who goes with whom in one statement, and what becomes of each when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lobu_actors.store.batch import MAX_BYTES, MAX_LONERS, MAX_MEMBERS, Batch
from lobu_actors.store.errors import StoreDuplicate, StoreError, StoreOutcomeUnknown, StoreRejected, StoreUnavailable


@attrs.define
class Statement:
    """Stands for one: doubles the numbers that it is given when `go` lets it, and refuses odd ones as a whole."""

    go: trio.Event = attrs.field(factory=trio.Event)
    sent: list[list[int]] = attrs.field(factory=list)
    failures: list[StoreError] = attrs.field(factory=list)

    async def __call__(self, items: str, members: int) -> list[tuple[object, ...]]:
        numbers = json.loads(items)
        assert len(numbers) == members
        self.sent.append(numbers)
        await self.go.wait()
        if self.failures:
            raise self.failures.pop(0)
        if any(number % 2 for number in numbers):
            raise StoreRejected("odd")
        return [(f"key{number:03}", 2 * number) for number in reversed(numbers) if number]


@attrs.define
class World:
    nursery: trio.Nursery
    statement: Statement = attrs.field(factory=Statement)
    batch: Batch = attrs.field(init=False)
    outcomes: dict[int, object] = attrs.field(factory=dict)
    scopes: dict[int, trio.CancelScope] = attrs.field(factory=dict)
    on_done: Callable[[int], None] = lambda number: None

    def __attrs_post_init__(self) -> None:
        self.batch = Batch(self.statement, key_columns=1)

    async def ask(self, *numbers: int) -> None:
        """Each in a task of its own, in this order."""
        for number in numbers:
            self.nursery.start_soon(self._one, number)
            await wait_all_tasks_blocked()

    async def _one(self, number: int) -> None:
        with trio.CancelScope() as self.scopes[number]:
            try:
                self.outcomes[number] = await self.batch.rows((f"key{number:03}",), str(number).encode())
            except StoreError as error:
                self.outcomes[number] = error
            self.on_done(number)
            return
        self.outcomes[number] = "cancelled"

    async def let_go(self) -> None:
        self.statement.go.set()
        await wait_all_tasks_blocked()


@pytest.fixture
async def world(nursery):
    return World(nursery)


async def test_a_lone_caller_waits_for_nobody(world):
    await world.ask(2)
    assert world.statement.sent == [[2]]
    await world.let_go()
    assert world.outcomes == {2: [(4,)]}


async def test_who_comes_meanwhile_goes_together_in_order_of_their_keys(world):
    await world.ask(8, 6, 2, 4)
    assert world.statement.sent == [[8]]
    await world.let_go()
    assert world.statement.sent == [[8], [2, 4, 6]]
    assert world.outcomes == {number: [(2 * number,)] for number in (8, 6, 2, 4)}


async def test_who_gets_no_row_gets_none(world):
    await world.ask(2, 0, 4)
    await world.let_go()
    assert world.outcomes == {2: [(4,)], 0: [], 4: [(8,)]}


async def test_one_key_is_never_twice_in_a_statement(world):
    await world.ask(2, 4)
    world.nursery.start_soon(world._one, 4)
    await wait_all_tasks_blocked()
    await world.let_go()
    assert world.statement.sent == [[2], [4], [4]]


async def test_a_statement_has_a_bound_of_members(world):
    await world.ask(*range(0, 2 * (MAX_MEMBERS + 3), 2))
    await world.let_go()
    assert [len(numbers) for numbers in world.statement.sent] == [1, MAX_MEMBERS, 2]
    assert len(world.outcomes) == MAX_MEMBERS + 3


async def test_the_next_statement_is_sent_before_those_who_were_served_go_on(world):
    await world.ask(*range(0, 2 * (MAX_MEMBERS + 3), 2))
    sent_then: dict[int, int] = {}
    world.on_done = lambda number: sent_then.setdefault(number, len(world.statement.sent))
    await world.let_go()
    leader = 2  # has waited for longest
    assert {sent_then[number] for number in world.statement.sent[1] if number != leader} == {3}


async def test_who_was_served_and_is_cancelled_then_takes_nobody_along(world):
    await world.ask(*range(0, 2 * (MAX_MEMBERS + 3), 2))
    cancelled = 4

    def cancel(number: int) -> None:
        world.scopes[cancelled].cancel()

    world.on_done = cancel
    await world.let_go()
    assert world.outcomes.pop(cancelled) in ("cancelled", [(8,)])
    assert world.outcomes == {n: [(2 * n,)] if n else [] for n in range(0, 2 * (MAX_MEMBERS + 3), 2) if n != cancelled}


async def test_a_statement_has_a_bound_of_bytes(world):
    await world.ask(0)
    for number in (2, 4, 6):
        item = str(number).encode() + b" " * (MAX_BYTES // 2 - 1)
        world.nursery.start_soon(world.batch.rows, (f"key{number:03}",), item)
        await wait_all_tasks_blocked()
    await world.let_go()
    assert world.statement.sent == [[0], [2, 4], [6]]


async def test_nobody_waits_for_what_is_long(world):
    """A session of many megabytes on its way over a slow line."""
    world.nursery.start_soon(world.batch.rows, ("key002",), b"2" + b" " * MAX_BYTES)
    await wait_all_tasks_blocked()
    await world.ask(4)
    assert world.statement.sent == [[2], [4]]
    await world.let_go()
    assert world.outcomes == {4: [(8,)]}


async def test_what_one_of_them_is_refused_for_is_no_others(world):
    await world.ask(2, 4, 5, 6)
    await world.let_go()
    assert world.statement.sent[:2] == [[2], [4, 5, 6]]
    assert sorted(world.statement.sent[2:]) == [[4], [5], [6]]
    assert isinstance(world.outcomes[5], StoreRejected)
    assert [world.outcomes[number] for number in (4, 6)] == [[(8,)], [(12,)]]


async def test_the_kind_of_an_error_stays(world):
    world.statement.failures = [StoreDuplicate("there already")]
    await world.ask(2)
    await world.let_go()
    assert isinstance(world.outcomes[2], StoreDuplicate)
    assert str(world.outcomes[2]) == "there already"


async def test_what_never_happened_is_asked_again_by_each(world):
    await world.ask(2)
    await world.ask(4, 6)
    world.statement.failures = [StoreUnavailable("none"), StoreUnavailable("none")]
    await world.let_go()
    assert isinstance(world.outcomes[2], StoreUnavailable), "nobody but the one that was alone"
    assert world.outcomes[4] == [(8,)]
    assert world.outcomes[6] == [(12,)]


async def test_an_unknown_outcome_is_everybodys(world):
    await world.ask(2)
    await world.ask(4, 6)
    world.statement.failures = [StoreRejected("no"), StoreOutcomeUnknown("gone")]
    await world.let_go()
    for number in (4, 6):
        assert isinstance(world.outcomes[number], StoreOutcomeUnknown)
    assert world.outcomes[4] is not world.outcomes[6], "each is raised in a task of its own"
    assert len(world.statement.sent) == 2


async def test_who_could_not_be_served_goes_alone_until_it_is(world):
    world.statement.failures = [StoreOutcomeUnknown("gone"), StoreUnavailable("locked")]
    await world.ask(2)
    await world.let_go()
    await world.ask(2)
    assert isinstance(world.outcomes[2], StoreUnavailable)
    world.statement.go = trio.Event()
    await world.ask(4, 2, 6)
    assert world.statement.sent[2:] == [[4], [2]], "2 neither waits nor is waited for"
    await world.let_go()
    assert world.outcomes == {2: [(4,)], 4: [(8,)], 6: [(12,)]}
    world.statement.go = trio.Event()
    await world.ask(4, 2)
    assert world.statement.sent[-1] == [4], "2 waits again"
    await world.let_go()


async def test_only_so_many_are_remembered(world):
    world.statement.go.set()
    for number in range(1, 2 * MAX_LONERS + 10, 2):
        await world._one(number)
    assert len(world.batch._loners) == MAX_LONERS


async def test_the_one_that_sends_is_cancelled(world):
    await world.ask(2, 4, 6)
    world.statement.go.set()
    world.statement.go = trio.Event()
    await wait_all_tasks_blocked()
    assert world.statement.sent == [[2], [4, 6]]
    await world.ask(8)
    world.scopes[4].cancel()
    await world.let_go()
    assert world.outcomes[4] == "cancelled"
    assert isinstance(world.outcomes[6], StoreOutcomeUnknown)
    assert world.outcomes[8] == [(16,)], "who waited goes next"


async def test_who_waits_is_cancelled(world):
    await world.ask(2, 4, 6)
    world.scopes[4].cancel()
    await world.let_go()
    assert world.outcomes[4] == "cancelled"
    assert world.statement.sent == [[2], [6]]


async def test_who_is_on_its_way_is_cancelled(world):
    await world.ask(2, 4, 6)
    world.statement.go.set()
    world.statement.go = trio.Event()
    await wait_all_tasks_blocked()
    world.scopes[6].cancel()
    await world.let_go()
    assert world.outcomes[6] == "cancelled"
    assert world.outcomes[4] == [(8,)]


async def test_the_last_one_that_waits_is_cancelled(world):
    await world.ask(2, 4)
    world.scopes[4].cancel()
    await world.let_go()
    await world.ask(6)
    assert world.outcomes[6] == [(12,)]
