"""One-use tickets: the same on both stores."""

from __future__ import annotations

import trio

from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.protocol import Store


async def test_a_ticket_is_used_once(store: Store) -> None:
    assert await store.use_ticket("acme", "t1", "first", kept_seconds=60)
    assert not await store.use_ticket("acme", "t1", "second", kept_seconds=60)
    assert await store.use_ticket("acme", "t2", "second", kept_seconds=60)


async def test_the_same_use_asked_again_is_no_second_one(store: Store) -> None:
    for _ in range(2):
        assert await store.use_ticket("acme", "t1", "first", kept_seconds=60)
    assert not await store.use_ticket("acme", "t1", "second", kept_seconds=60)


async def test_tickets_of_two_organizations_are_two(store: Store) -> None:
    assert await store.use_ticket("acme", "t1", "first", kept_seconds=60)
    assert await store.use_ticket("other", "t1", "second", kept_seconds=60)


async def test_of_many_at_once_one_wins(store: Store) -> None:
    won: list[str] = []

    async def use(name: str) -> None:
        if await store.use_ticket("acme", "t1", name, kept_seconds=60):
            won.append(name)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(use, str(number))
    assert len(won) == 1


async def test_what_is_over_is_deleted_by_later_uses(store: Store) -> None:
    """An expired row goes with another's use, so a use that is long over can be recorded anew."""
    assert await store.use_ticket("acme", "old", "first", kept_seconds=-1)
    assert await store.use_ticket("acme", "new", "first", kept_seconds=60)
    assert await store.use_ticket("acme", "old", "second", kept_seconds=60)
    assert not await store.use_ticket("acme", "new", "second", kept_seconds=60)


async def test_a_use_that_is_over_is_no_use(store: Store) -> None:
    """Whether its row was deleted meanwhile makes no difference."""
    assert await store.use_ticket("acme", "t1", "first", kept_seconds=-1)
    assert await store.use_ticket("acme", "t1", "second", kept_seconds=60)
    assert not await store.use_ticket("acme", "t1", "first", kept_seconds=60)


async def test_the_same_use_again_is_known_from_then_on(store: Store) -> None:
    assert await store.use_ticket("acme", "t1", "first", kept_seconds=-1)
    assert await store.use_ticket("acme", "t1", "first", kept_seconds=60)
    assert not await store.use_ticket("acme", "t1", "second", kept_seconds=60)


async def test_the_other_process_knows(store: Store, store_url: str | None) -> None:
    if store_url is None:
        return
    other = PostgresStore.connect(store_url)
    assert await store.use_ticket("acme", "t1", "first", kept_seconds=60)
    assert not await other.use_ticket("acme", "t1", "second", kept_seconds=60)
    other.close()
