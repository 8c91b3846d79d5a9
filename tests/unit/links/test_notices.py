"""Notices: many hints in one, never too long, heard by the host that they are for; what is none harms nobody."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.memory import MemoryStore
from supervisor.links.notices import LAST_SECONDS, LOOK, PAYLOAD_BYTES, Notices, payload

REF = ConversationRef("acme", "echo", "echo_ann_acme")


class Host:
    def __init__(self, store: MemoryStore, host_id: str) -> None:
        self.heard: list[tuple[ConversationRef, str | None]] = []
        self.looks = 0
        self.notices = Notices(store, lambda: host_id, self.hinted, self.look)
        self.context = ChildContext(host_id)

    async def hinted(self, ref: ConversationRef, message_id: str | None) -> None:
        self.heard.append((ref, message_id))

    async def look(self) -> None:
        self.looks += 1


def test_too_many_to_name_are_looked_for() -> None:
    assert payload([(REF, "m")]).startswith("[")
    assert payload([(REF, f"m{number}") for number in range(200)]) == LOOK
    assert len(payload([(REF, "m" * 200)] * 20)) <= PAYLOAD_BYTES


async def test_hints_reach_the_host_that_they_are_for_together(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    sent: list[str] = []
    notify = store.notify

    async def counted(host_id: str, text: str) -> None:
        sent.append(text)
        await notify(host_id, text)

    monkeypatch.setattr(store, "notify", counted)
    a, b = Host(store, "a"), Host(store, "b")
    async with trio.open_nursery() as nursery:
        for host in (a, b):
            nursery.start_soon(host.notices.run, host.context)
        await trio.sleep(5)
        looked = b.looks
        for number in range(3):
            a.notices.tell("b", REF, f"m{number}")
        a.notices.tell("b", REF, "m0")
        await trio.sleep(1)
        assert b.heard == [(REF, "m0"), (REF, "m1"), (REF, "m2")]
        assert len(sent) == 1
        for number in range(2000):
            a.notices.tell("b", REF, f"m{number}")
        await trio.sleep(1)
        assert (sent[1:], b.looks) == ([LOOK], looked + 1)
        for noise in ("", "{}", "[[1]]", "null", "[" * 10_000):
            await notify("b", noise)
        a.notices.tell("b", REF, "last")
        await trio.sleep(1)
        assert b.heard[-1] == (REF, "last")
        a.notices.tell("b", REF, None)
        await trio.sleep(1)
        assert b.heard[-1] == (REF, None), "a conversation that is free"
        nursery.cancel_scope.cancel()
    assert a.heard == []


async def test_a_host_that_ends_says_its_last_word(autojump_clock: trio.testing.MockClock) -> None:
    """A drain gives the last conversations up right before the host ends."""
    store = MemoryStore()
    a, b = Host(store, "a"), Host(store, "b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(b.notices.run, b.context)
        async with trio.open_nursery() as of_a:
            of_a.start_soon(a.notices.run, a.context)
            await trio.sleep(5)
            a.notices.tell("b", REF, None)
            a.context.stopping.set()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert b.heard == [(REF, None)]


async def test_what_is_being_told_when_a_host_ends_is_told_all_the_same(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it gave up, above all: the store takes a while for one, and it ends meanwhile."""
    store = MemoryStore()
    told: list[str] = []

    async def slow(host_id: str, text: str) -> None:
        await trio.sleep(LAST_SECONDS / 3)
        told.append(host_id)

    monkeypatch.setattr(store, "notify", slow)
    host = Host(store, "a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.notices.run, host.context)
        host.notices.tell("b", REF, None)
        host.notices.tell("c", REF, None)
        await trio.sleep(LAST_SECONDS / 5)
        host.context.stopping.set()
    assert sorted(told) == ["b", "c"]
