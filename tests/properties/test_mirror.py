"""A conversation that is owned on one host and read on another: whatever is cut, made again, handed over or told late,
a reader's view is exact, as if it had read at the owner.

Owners and readers share the store only. Between them is what a link does: frames, made by the owner's source when it is
asked for them, lost when the link is cut, and taken by the mirror. Every frame is encoded and decoded.
"""

from __future__ import annotations

import copy
from unittest import mock

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.subscription
import lobu_actors.gateway.feed
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Feed, Feeds
from lobu_actors.gateway.link import wire
from lobu_actors.gateway.link.mirror import Mirror
from lobu_actors.gateway.link.source import FeedSource
from lobu_actors.gateway.writer import FeedWriter
from lobu_actors.runtime.timers import Timers
from lobu_actors.store.records import Activation, RequeueRun
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.gateway import NOW_MS, Owner
from tests.properties.test_subscription import SETTINGS, Reader, Scenario


@attrs.define
class Link:
    """From one owner's feed to the one that is read."""

    mirror: Mirror
    feed: Feed
    epoch: int
    source: FeedSource | None = None
    on_its_way: list[str] = attrs.field(factory=list)

    def connect(self) -> None:
        self.source = FeedSource(7, self.feed, self.epoch)

    def cut(self) -> None:
        self.source = None
        self.on_its_way.clear()
        self.mirror.end()

    def pump(self, frames: int) -> None:
        while frames and self.source is not None and (frame := self.source.next()) is not None:
            self.on_its_way.append(frame)
            frames -= 1

    def arrive(self, frames: int) -> None:
        while frames and self.on_its_way:
            self.mirror.take(wire.from_server(self.on_its_way.pop(0)))
            frames -= 1


class LinkedScenario(Scenario):
    """`gateway` is the reading host's; each owner has feeds of its own."""

    links: list[Link]
    number = 0

    async def become_owner(self) -> None:
        """Another host takes the lease. What its predecessor still shows stays shown until its link is cut."""
        self.number += 1
        host = f"host{self.number}"
        await self.store.register_host(host, name=host, link_url=None, version="0", ttl_seconds=1e9)
        activation = await self.store.activate(self.ref, host)
        assert isinstance(activation, Activation)
        feeds = Feeds(lambda: NOW_MS, Timers())
        feed = feeds.hold(self.ref)
        feed.readers += 1  # as a link that tells of it counts
        writer = FeedWriter(feed, activation.lease.epoch, activation.conversation.last_seq)
        self.owner = Owner(self.store, writer, activation.lease, activation.conversation.last_seq)
        read = self.gateway.feeds.hold(self.ref)
        self.links.append(Link(Mirror(self.ref, read), feed, activation.lease.epoch))

    async def step(self, world: EdgeWorld, name: str, number: int, text: str) -> None:
        link = self.links[-1 - number % 2] if len(self.links) > 1 else self.links[-1]
        if name == "cut":
            link.cut()
        elif name == "connect" and link.source is None:
            link.connect()
        elif name == "pump":
            link.pump(1 + number % 5)
        elif name == "arrive":
            link.arrive(1 + number % 5)
        elif name == "hand over":
            await self.hand_over()
        else:
            await super().step(world, name, number, text)

    async def hand_over(self) -> None:
        old = self.owner
        ended = any(event.run_id == old.run_id and event.attempt is None for event in old.untold)
        old.untold.clear()  # committed, and never told by its writer
        if self.running is not None and not ended:
            requeue = RequeueRun(old.run_id, (self.running.turn_id,), failed=True)
            assert await self.store.requeue_run(old.lease, requeue)
            self.attempt += 1
        elif self.running is not None:
            self.running = None  # its end was committed
        await self.store.release(old.lease)
        await self.become_owner()
        if self.running is not None:
            await self.begin()

    def forget_ended(self) -> None:
        if self.owner.text is None:
            self.running = None

    async def read(self, number: int) -> None:
        """As a reader whose connection may be cut between any two chunks."""
        for reader in self.readers[number % 3 : number % 3 + 1]:
            self.look_at_chunk(reader, await reader.subscription.next_chunk())

    def look_at_chunk(self, reader: Reader, chunk: bytes | None) -> None:
        kept = self.pasts
        self.pasts = []
        self.look(reader, chunk)
        self.pasts = [*kept, copy.deepcopy(reader.view)]

    async def quiesce(self) -> None:
        self.owner.tell()
        for link in self.links[:-1]:
            link.cut()
        last = self.links[-1]
        if last.source is None:
            last.connect()
        last.arrive(10_000)
        last.pump(10_000)
        last.arrive(10_000)
        await super().quiesce()


NAMES = [
    *["say"] * 5, *["read"] * 6, *["tell"] * 3, *["join"] * 2, *["pump"] * 6, *["arrive"] * 6, *["connect"] * 3,
    "cut", "cut", "hand over", "accept", "begin", "begin", "end", "status", "question", "question", "retry",
]  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 30), st.sampled_from(["a", "bcd", "é\n", "😀x", "12345678"])),
    min_size=30,
    max_size=120,
)


async def play(steps: list[tuple[str, int, str]]) -> None:
    world = await EdgeWorld.make(SETTINGS)
    ref: ConversationRef = await world.conversation()
    scenario = LinkedScenario(world.store, world.gateway, ref, None)  # type: ignore[arg-type]
    scenario.links = []
    await scenario.become_owner()
    prelude = [("connect", 0, ""), ("accept", 0, ""), ("begin", 0, ""), ("join", 0, ""), ("read", 0, "")]
    await scenario.play(world, [*prelude, *steps])


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_a_reader_on_another_host_sees_exactly_what_happened(steps: list[tuple[str, int, str]]) -> None:
    with (
        mock.patch.object(lobu_actors.gateway.feed, "KEPT_ITEMS", 3),
        mock.patch.object(edge.subscription, "FRAME_CHARS", 3),
        mock.patch.object(wire, "TEXT_CHARS", 5),
    ):
        trio.run(play, steps, clock=trio.testing.MockClock(autojump_threshold=0))
