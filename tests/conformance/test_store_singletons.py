"""Singletons' leases, watchers' firings and debts to chats: the same on both stores."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest
import trio
from msgspec.structs import replace

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import DeliveryStatus
from lobu_actors.store.protocol import Store
from lobu_actors.store.singleton_records import NewDelivery, SingletonLease, SingletonName

NAME = SingletonName("acme", "poller", "telegram:1")
SCHEDULER = SingletonName("acme", "scheduler", "watchers")


async def held(store: Store, helpers, name: SingletonName = NAME, host_id: str = "h1") -> SingletonLease:
    await helpers.alive(store, host_id)
    lease = await store.acquire_singleton(name, host_id)
    assert lease is not None
    return lease


def debt(ref: ConversationRef, message_id: str, notice: str | None = None) -> NewDelivery:
    return NewDelivery(message_id, ref, message_id, {"chat": 7}, notice)


async def owed(store: Store) -> list[tuple[str, int]]:
    return [(found.delivery_id, found.parts_sent) for found in await store.find_owed_deliveries(NAME, limit=10)]


# --- the lease


async def test_a_live_holder_keeps_it(store, helpers):
    lease = await held(store, helpers)
    assert lease.epoch == 1
    await helpers.alive(store, "h2")
    assert await store.acquire_singleton(NAME, "h2") is None
    assert await store.is_singleton_held(lease)
    assert (await store.acquire_singleton(attrs.evolve(NAME, key="telegram:2"), "h2")).epoch == 1
    assert (await store.acquire_singleton(attrs.evolve(NAME, organization_id="rival"), "h2")).epoch == 1
    assert (await store.acquire_singleton(attrs.evolve(NAME, kind="scheduler"), "h2")).epoch == 1


async def test_a_conversations_lease_is_another_thing(owner):
    """Whose key may be anything, a bot's included."""
    lease = await owner.store.acquire_singleton(SingletonName(owner.ref.organization_id, "poller", "x"), "h1")
    assert lease is not None
    with pytest.raises(ValueError, match="activation"):
        SingletonName("acme", "conversation", owner.ref.conversation_id)


async def test_of_a_dead_or_expired_holder_it_is_taken(store, helpers):
    lease = await held(store, helpers)
    await helpers.alive(store, "h2")
    await store.declare_host_dead("h1")
    taken = await store.acquire_singleton(NAME, "h2")
    assert taken.epoch == 2
    assert not await store.is_singleton_held(lease)
    await helpers.alive(store, "h2", ttl_seconds=0)
    await helpers.alive(store, "h3")
    assert (await store.acquire_singleton(NAME, "h3")).epoch == 3


async def test_who_is_no_live_host_gets_nothing(store, helpers):
    assert await store.acquire_singleton(NAME, "nobody") is None
    await helpers.alive(store, "h1", ttl_seconds=0)
    assert await store.acquire_singleton(NAME, "h1") is None


async def test_a_holder_that_was_away_and_alone_takes_it_again_under_a_new_epoch(store, helpers):
    lease = await held(store, helpers)
    again = await store.acquire_singleton(NAME, "h1")
    assert again.epoch == lease.epoch + 1
    assert not await store.is_singleton_held(lease)


async def test_given_up_it_is_free_and_its_epoch_goes_on(store, helpers):
    lease = await held(store, helpers)
    await store.release_singleton(replace(lease, epoch=lease.epoch + 1))
    assert await store.is_singleton_held(lease), "another epoch's release is not ours"
    await store.release_singleton(lease)
    await store.release_singleton(lease)
    await helpers.alive(store, "h2")
    assert (await store.acquire_singleton(NAME, "h2")).epoch == lease.epoch + 1


async def test_of_many_at_once_one_gets_it(store, helpers):
    for number in range(6):
        await helpers.alive(store, f"h{number}")
    for _ in range(10):
        got: list[SingletonLease] = []

        async def ask(host_id: str, got: list[SingletonLease] = got) -> None:
            if (lease := await store.acquire_singleton(NAME, host_id)) is not None:
                got.append(lease)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(ask, f"h{number}")
        [lease] = got
        await store.release_singleton(lease)


# --- watchers


async def test_a_new_watcher_counts_from_now(store, helpers):
    lease = await held(store, helpers, SCHEDULER)
    before = await store.now()
    first = await store.begin_watchers(lease, {"b": "s1", "a": "s1"})
    assert [(state.watcher_id, state.pending_for) for state in first] == [("a", None), ("b", None)]
    after = await store.now()
    assert all(before <= state.considered_until <= after for state in first)
    assert await store.begin_watchers(lease, {"b": "s1", "a": "s1"}) == first


async def test_another_schedule_counts_from_now_and_a_removed_watcher_is_forgotten(store, helpers):
    lease = await held(store, helpers, SCHEDULER)
    [a, b] = await store.begin_watchers(lease, {"a": "s1", "b": "s1"})
    [changed] = await store.begin_watchers(lease, {"a": "s2"})
    assert changed.considered_until > a.considered_until
    [_, back] = await store.begin_watchers(lease, {"a": "s2", "b": "s1"})
    assert back.considered_until > b.considered_until
    assert await store.begin_watchers(lease, {}) == []


async def test_a_firing_is_decided_on_once(store, helpers):
    lease = await held(store, helpers, SCHEDULER)
    [state] = await store.begin_watchers(lease, {"w": "s"})
    first = state.considered_until + timedelta(seconds=10)
    second = first + timedelta(seconds=10)
    assert not await store.claim_firing(lease, "w", state.considered_until), "that time is dealt with"
    assert not await store.claim_firing(lease, "nobody", first)
    for _ in range(2):  # asked again after an unknown outcome
        assert await store.claim_firing(lease, "w", first)
    assert not await store.claim_firing(lease, "w", second), "one at a time"
    [state] = await store.begin_watchers(lease, {"w": "other"})
    assert (state.considered_until, state.pending_for) == (first, first), "what was decided on is made"
    for _ in range(2):
        assert await store.confirm_firing(lease, "w", first)
    assert not await store.claim_firing(lease, "w", first)
    assert await store.claim_firing(lease, "w", second)
    assert await store.confirm_firing(lease, "w", first), "late, and of no effect"
    [state] = await store.begin_watchers(lease, {"w": "other"})
    assert state.pending_for == second


async def test_a_watcher_of_another_organization_is_another(store, helpers):
    lease = await held(store, helpers, SCHEDULER)
    rival = await held(store, helpers, attrs.evolve(SCHEDULER, organization_id="rival"))
    [state] = await store.begin_watchers(lease, {"w": "s"})
    assert await store.begin_watchers(rival, {}) == []
    assert await store.begin_watchers(lease, {"w": "s"}) == [state]


async def test_whoever_lost_the_lease_decides_nothing(store, helpers):
    lease = await held(store, helpers, SCHEDULER)
    [state] = await store.begin_watchers(lease, {"w": "s"})
    at = state.considered_until + timedelta(seconds=1)
    assert await store.claim_firing(lease, "w", at)
    await store.declare_host_dead("h1")
    taken = await held(store, helpers, SCHEDULER, "h2")
    assert await store.begin_watchers(lease, {}) is None
    assert not await store.claim_firing(lease, "w", at)
    assert not await store.confirm_firing(lease, "w", at)
    [state] = await store.begin_watchers(taken, {"w": "s"})
    assert state.pending_for == at


# --- debts to chats


async def test_a_debt_waits_for_its_messages_end(owner, helpers):
    store, ref = owner.store, owner.ref
    name = attrs.evolve(NAME, organization_id=ref.organization_id)
    lease = await held(store, helpers, name)
    assert await store.owe_delivery(lease, debt(ref, "m1"))
    [found] = await store.find_owed_deliveries(name, limit=10)
    assert (found.ref, found.address, found.notice, found.has_turn) == (ref, {"chat": 7}, None, False)
    turn = await owner.accept("m1")
    [found] = await store.find_owed_deliveries(name, limit=10)
    assert (found.has_turn, found.terminal_seq) == (True, None)
    [event] = await store.finish_run(owner.lease, helpers.finish(await owner.start(turn), turn))
    [found] = await store.find_owed_deliveries(name, limit=10)
    assert found.terminal_seq == event.seq
    assert await store.record_delivery(lease, "m1", DeliveryStatus.DELIVERED, parts_sent=1, error=None)
    assert await store.find_owed_deliveries(name, limit=10) == []
    assert await store.owe_delivery(lease, debt(ref, "m1", "again")), "an update that came twice"
    assert await store.find_owed_deliveries(name, limit=10) == []


async def test_the_oldest_of_each_conversation_is_shown(store, helpers):
    lease = await held(store, helpers)
    one, two = ConversationRef("acme", "agent", "one"), ConversationRef("acme", "agent", "two")
    for ref, message_id in ((two, "m1"), (one, "m2"), (two, "m3"), (one, "m0")):
        assert await store.owe_delivery(lease, debt(ref, message_id))
    assert await owed(store) == [("m1", 0), ("m2", 0)]
    assert len(await store.find_owed_deliveries(NAME, limit=1)) == 1
    assert await store.record_delivery(lease, "m1", DeliveryStatus.UNDELIVERABLE, parts_sent=0, error="blocked")
    assert await owed(store) == [("m2", 0), ("m3", 0)]
    assert await store.record_delivery(lease, "m2", DeliveryStatus.OWED, parts_sent=2, error=None)
    assert await store.record_delivery(lease, "m2", DeliveryStatus.OWED, parts_sent=1, error=None)
    assert await owed(store) == [("m2", 2), ("m3", 0)]
    assert await store.find_owed_deliveries(attrs.evolve(NAME, key="telegram:2"), limit=10) == []


async def test_a_notice_takes_the_place_of_a_reply_that_has_not_begun(store, helpers):
    lease = await held(store, helpers)
    ref = ConversationRef("acme", "agent", "one")
    await store.owe_delivery(lease, debt(ref, "m1"))
    await store.owe_delivery(lease, debt(ref, "m1", "full"))
    await store.owe_delivery(lease, debt(ref, "m1"))
    [found] = await store.find_owed_deliveries(NAME, limit=10)
    assert found.notice == "full"
    await store.record_delivery(lease, "m1", DeliveryStatus.OWED, parts_sent=1, error=None)
    await store.owe_delivery(lease, debt(ref, "m1", "other"))
    [found] = await store.find_owed_deliveries(NAME, limit=10)
    assert found.notice == "full"


async def test_what_has_ended_stays_as_it_ended(store, helpers):
    lease = await held(store, helpers)
    await store.owe_delivery(lease, debt(ConversationRef("acme", "agent", "one"), "m1"))
    await store.record_delivery(lease, "m1", DeliveryStatus.UNDELIVERABLE, parts_sent=0, error="blocked")
    assert await store.record_delivery(lease, "m1", DeliveryStatus.OWED, parts_sent=0, error=None)
    assert await owed(store) == []


async def test_old_ones_that_have_ended_or_have_no_turn_are_forgotten(owner, helpers):
    store, ref = owner.store, owner.ref
    name = attrs.evolve(NAME, organization_id=ref.organization_id)
    lease = await held(store, helpers, name)
    await owner.accept("running")
    for delivery in (debt(ref, "ended"), debt(ref, "running"), debt(ref, "notice", "told soon"), debt(ref, "no turn")):
        await store.owe_delivery(lease, delivery)
    await store.record_delivery(lease, "ended", DeliveryStatus.DELIVERED, parts_sent=1, error=None)
    assert await store.forget_deliveries(lease, older_than_seconds=60, limit=10) == 0
    assert await store.forget_deliveries(lease, older_than_seconds=-1, limit=1) == 1
    assert await store.forget_deliveries(lease, older_than_seconds=-1, limit=10) == 1
    [found] = await store.find_owed_deliveries(name, limit=10)
    assert found.message_id == "running"
    await store.record_delivery(lease, "running", DeliveryStatus.DELIVERED, parts_sent=1, error=None)
    [found] = await store.find_owed_deliveries(name, limit=10)
    assert found.message_id == "notice"


async def test_whoever_lost_the_lease_writes_no_debt(store, helpers):
    lease = await held(store, helpers)
    ref = ConversationRef("acme", "agent", "one")
    await store.owe_delivery(lease, debt(ref, "m1"))
    await store.declare_host_dead("h1")
    await held(store, helpers, NAME, "h2")
    assert not await store.owe_delivery(lease, debt(ref, "m2"))
    assert not await store.record_delivery(lease, "m1", DeliveryStatus.DELIVERED, parts_sent=1, error=None)
    assert await store.forget_deliveries(lease, older_than_seconds=-1, limit=10) == 0
    assert await owed(store) == [("m1", 0)]
