"""Where a stream begins, when it ends, and what a store that is away does to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from edge.settings import EdgeSettings
from edge.subscription import StreamBroken, Subscription
from lobu_actors.contract.events import Cursor, EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.records import Event, Turn
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.gateway import Owner
from tests.fakes.http_server import Frame, parse_frames

PING = b": ping\n\n"
SETTINGS = EdgeSettings(replay_page_events=2, store_patience_seconds=60)


class PoorStore(MemoryStore):
    """Can be away, can be slow, and can have trimmed the beginning of its logs."""

    away = False
    slow = False
    trimmed = 0
    reads = 0
    before_read: Callable[[], Awaitable[None]] | None = None  # once

    async def read_events(self, ref: ConversationRef, from_seq: int, *, limit: int) -> list[Event]:
        self.reads += 1
        if self.before_read is not None:
            happens, self.before_read = self.before_read, None
            await happens()
        if self.slow:
            await trio.sleep_forever()
        if self.away:
            raise StoreUnavailable("away")
        return await super().read_events(ref, max(from_seq, self.trimmed + 1), limit=limit)


class Scene:
    def __init__(self, world: EdgeWorld, ref: ConversationRef, owner: Owner) -> None:
        self.world, self.ref, self.owner = world, ref, owner
        self.store: PoorStore = world.store
        self.held = ExitStack()
        self.draining = False

    async def turn(self, message_id: str, kind: EventType | None = EventType.COMPLETE) -> Turn:
        turn = await self.world.message(self.ref, message_id=message_id)
        if kind is not None:
            await self.owner.begin(turn)
            self.owner.say(f"reply to {message_id}")
            await self.owner.end(turn, kind)
        return turn

    async def open(self, start: str | None = None, follow: str | None = None) -> Subscription:
        conversation = await self.store.find_conversation("acme", self.ref.conversation_id)
        assert conversation is not None
        turn = await self.store.find_turn(self.ref, follow) if follow else None
        cursor = None
        if start is not None:
            seq, *rest = (int(part) for part in start.split("."))
            cursor = Cursor(seq, *rest)
        feed = self.held.enter_context(self.world.gateway.open_feed(self.ref))
        return Subscription(
            conversation, self.store, feed, SETTINGS, start=cursor, turn=turn, draining=lambda: self.draining
        )


@pytest.fixture
async def scene(nursery: trio.Nursery) -> AsyncIterator[Scene]:
    world = await EdgeWorld.make(SETTINGS, PoorStore())
    nursery.start_soon(world.gateway.timers.fire)
    ref = await world.conversation()
    scene = Scene(world, ref, await world.owner(ref))
    with scene.held:
        yield scene


async def until_quiet(subscription: Subscription) -> tuple[list[Frame], bool]:
    """All frames up to the first ping, or the end; and whether it ended."""
    raw = b""
    while (chunk := await subscription.next_chunk()) not in (None, PING):
        assert chunk is not None
        raw += chunk
    return parse_frames(raw), chunk is None


async def seen(subscription: Subscription) -> tuple[list[str], bool]:
    frames, ended = await until_quiet(subscription)
    return [f"{frame.event}:{frame.id}" if frame.id else frame.event for frame in frames], ended


async def test_from_the_beginning(scene: Scene, autojump_clock: MockClock) -> None:
    for number in range(5):
        await scene.turn(f"m{number}")
    names, ended = await seen(await scene.open())
    assert names == ["connected", "complete:1", "complete:2", "complete:3", "complete:4", "complete:5"]
    assert not ended


async def test_from_a_cursor(scene: Scene, autojump_clock: MockClock) -> None:
    for number in range(3):
        await scene.turn(f"m{number}")
    assert await seen(await scene.open("1")) == (["connected", "complete:2", "complete:3"], False)
    assert await seen(await scene.open("3")) == (["connected"], False)
    assert await seen(await scene.open("0.1.5")) == (["connected", "complete:1", "complete:2", "complete:3"], False)


async def test_followed_message_ends_the_stream(scene: Scene, autojump_clock: MockClock) -> None:
    for number in range(4):
        await scene.turn(f"m{number}")
    assert await seen(await scene.open(follow="m1")) == (["connected", "complete:2"], True)
    assert await seen(await scene.open("0", follow="m1")) == (["connected", "complete:1", "complete:2"], True)


async def test_followed_message_that_failed_ends_with_both_frames(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.turn("m0", EventType.AGENT_ERROR)
    assert await seen(await scene.open(follow="m0")) == (["connected", "agent-error:1", "error:1"], True)


@pytest.mark.parametrize("start", ["2", "2.1.4", "4"])
async def test_followed_message_that_ended_before_the_cursor_ends_at_once(
    scene: Scene, autojump_clock: MockClock, start: str
) -> None:
    for number in range(5):
        await scene.turn(f"m{number}")
    assert await seen(await scene.open(start, follow="m1")) == (["connected"], True)


async def test_followed_message_that_is_queued_waits_for_its_own_end(scene: Scene, autojump_clock: MockClock) -> None:
    first, second = await scene.turn("m0", None), await scene.turn("m1", None)
    subscription = await scene.open(follow="m1")
    assert await seen(subscription) == (["connected"], False)
    await scene.owner.begin(first)
    await scene.owner.end(first)
    assert await seen(subscription) == (["complete:1"], False)
    await scene.owner.begin(second)
    await scene.owner.end(second, EventType.CANCELLED)
    assert await seen(subscription) == (["cancelled:2"], True)


async def test_trimmed_log_gives_a_gap_and_then_what_is_left(scene: Scene, autojump_clock: MockClock) -> None:
    for number in range(5):
        await scene.turn(f"m{number}")
    scene.store.trimmed = 3
    frames, _ = await until_quiet(await scene.open("1"))
    assert [frame.event for frame in frames] == ["connected", "gap", "complete", "complete"]
    assert frames[1].data == {"from": 1, "to": 4, "reason": "older than what is kept"}
    assert frames[1].id is None
    assert [frame.event for frame in (await until_quiet(await scene.open("0")))[0]][:2] == ["connected", "gap"]
    assert (await seen(await scene.open()))[0] == ["connected", "complete:4", "complete:5"]


async def test_trimmed_to_nothing_is_no_gap_for_who_had_it_all(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.turn("m0")
    scene.store.trimmed = 1
    assert await seen(await scene.open("1")) == (["connected"], False)


async def test_unknown_cursor_gives_a_gap_and_everything(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.turn("m0")
    frames, _ = await until_quiet(await scene.open("7"))
    assert [frame.event for frame in frames] == ["connected", "gap", "complete"]
    assert frames[1].data == {"from": 7, "to": 1, "reason": "unknown cursor"}


async def test_closed_conversation_ends_every_stream(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.turn("m0")
    live = await scene.open()
    assert await seen(live) == (["connected", "complete:1"], False)
    await scene.owner.close()
    assert await seen(live) == (["closed:2"], True)
    assert await seen(await scene.open()) == (["connected", "complete:1", "closed:2"], True)
    assert await seen(await scene.open("2")) == (["connected"], True)


async def test_reopened_conversation_goes_on_behind_its_old_end(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.owner.close()
    await scene.store.open_conversation(scene.ref, "ann")
    assert await seen(await scene.open("1")) == (["connected"], False)
    await scene.turn("m0")
    assert await seen(await scene.open()) == (["connected", "closed:1", "complete:2"], False)


async def test_who_is_there_when_a_drain_begins_may_come_again_sooner_than_who_comes_to_it(
    scene: Scene, autojump_clock: MockClock
) -> None:
    there = await scene.open()
    scene.draining = True
    waits = []
    for subscription in (there, await scene.open()):
        chunks = b""
        while (chunk := await subscription.next_chunk()) is not None:
            chunks += chunk
        [frame] = [frame for frame in parse_frames(chunks) if frame.event == "drain"]
        waits.append(frame.data["reconnectInMs"])
    assert waits == [SETTINGS.drain_reconnect_ms, SETTINGS.drain_again_ms]
    assert waits[0] < waits[1]


async def test_drain_ends_the_stream_after_what_is_there(scene: Scene, autojump_clock: MockClock) -> None:
    turn = await scene.turn("m0", None)
    await scene.owner.begin(turn)
    subscription = await scene.open()
    assert await seen(subscription) == (["connected"], False)
    scene.owner.say("partly")
    scene.draining = True
    assert await seen(subscription) == (["output:0.1.6", "drain"], True)


async def test_store_away_in_the_middle_pings_and_goes_on(scene: Scene, autojump_clock: MockClock) -> None:
    scene.store.away = True
    await scene.turn("m0")
    subscription = await scene.open(follow="m0")
    assert await seen(subscription) == (["connected"], False)
    assert await subscription.next_chunk() == PING
    scene.store.away = False
    assert await seen(subscription) == (["complete:1"], True)


async def test_live_text_goes_on_while_the_store_is_away(scene: Scene, autojump_clock: MockClock) -> None:
    turn = await scene.turn("m0", None)
    await scene.owner.begin(turn)
    subscription = await scene.open(follow="m0")
    assert await seen(subscription) == (["connected"], False)
    scene.store.away = True
    for number in range(1, 9):
        scene.owner.say("x")
        assert await seen(subscription) == ([f"output:0.1.{number}"], False)


@pytest.mark.parametrize("trouble", ["away", "slow"])
async def test_patience_with_the_store_ends_and_never_cleanly(
    scene: Scene, autojump_clock: MockClock, trouble: str
) -> None:
    await scene.turn("m0")
    setattr(scene.store, trouble, True)
    subscription = await scene.open(follow="m0")
    began = trio.current_time()
    last = began
    chunk: bytes | None = PING
    try:
        while chunk is not None:
            chunk = await subscription.next_chunk()
            assert trio.current_time() - last <= 15, "a keep-alive at least every 15 s"
            last = trio.current_time()
    except StreamBroken:
        pass
    assert chunk is not None, "no clean end"
    assert 60 <= trio.current_time() - began < 90


async def test_lost_hint_is_found_by_the_poll(scene: Scene, autojump_clock: MockClock) -> None:
    turn = await scene.turn("m0", None)
    await scene.owner.begin(turn)
    subscription = await scene.open(follow="m0")
    assert await seen(subscription) == (["connected"], False)
    await scene.owner.commit_end(turn)  # and never told
    began = trio.current_time()
    assert await seen(subscription) == (["complete:1"], True)
    assert trio.current_time() - began <= SETTINGS.poll_seconds


async def test_one_reader_polls_for_all(scene: Scene, autojump_clock: MockClock) -> None:
    readers = [await scene.open() for _ in range(20)]

    async def read(subscription: Subscription) -> None:
        raw = b""
        while b"event: complete" not in raw:
            raw += await subscription.next_chunk() or b""

    async with trio.open_nursery() as nursery:
        for reader in readers:
            nursery.start_soon(read, reader)
        await trio.sleep(SETTINGS.poll_seconds * 3.5)
        assert scene.store.reads <= len(readers) + 4, "to begin with, each; then one of them each time"
        turn = await scene.turn("m1", None)
        await scene.owner.begin(turn)
        await scene.owner.commit_end(turn)  # and never told
        nursery.cancel_scope.deadline = trio.current_time() + SETTINGS.poll_seconds * 2
    assert not nursery.cancel_scope.cancelled_caught, "all were told of the end"


async def test_who_leaves_while_it_polls_leaves_the_poll_to_others(scene: Scene, autojump_clock: MockClock) -> None:
    turn = await scene.turn("m0", None)
    await scene.owner.begin(turn)
    leaving, staying = await scene.open(follow="m0"), await scene.open(follow="m0")
    for subscription in (leaving, staying):
        assert await seen(subscription) == (["connected"], False)
    await scene.owner.commit_end(turn)  # and never told
    scene.store.slow = True
    with trio.move_on_after(SETTINGS.poll_seconds + SETTINGS.read_seconds / 2):
        while True:
            await leaving.next_chunk()
    scene.store.slow = False
    began = trio.current_time()
    assert await seen(staying) == (["complete:1"], True)
    assert trio.current_time() - began <= SETTINGS.poll_seconds


async def test_readers_at_the_same_place_are_sent_the_same(scene: Scene, autojump_clock: MockClock) -> None:
    readers = [await scene.open() for _ in range(3)]
    for reader in readers:
        assert await reader.next_chunk() is not None
    turn = await scene.turn("m1", None)
    await scene.owner.begin(turn)
    at = 0
    for piece in ("one", "three"):
        scene.owner.say(piece)
        at += len(piece)
        chunks = [await reader.next_chunk() for reader in readers]
        assert chunks[0] is not None
        assert all(chunk is chunks[0] for chunk in chunks), "encoded once"
        [frame] = parse_frames(chunks[0])
        assert (frame.data["content"], frame.id) == (piece, f"0.1.{at}")


async def test_what_is_told_while_it_polls_is_shown_with_its_text(scene: Scene, autojump_clock: MockClock) -> None:
    """The log has the end by then, but no pieces: who read on from there would have lost them."""
    turn = await scene.world.message(scene.ref, message_id="m0")
    await scene.owner.begin(turn)
    subscription = await scene.open(follow="m0")
    assert await seen(subscription) == (["connected"], False)

    async def told() -> None:
        scene.owner.say("all of it")
        await scene.owner.end(turn)

    scene.store.before_read = told
    names, ended = await seen(subscription)
    assert (names, ended) == (["output:0.1.9", "complete:1"], True)


async def test_idle_stream_polls_rarely(scene: Scene, autojump_clock: MockClock) -> None:
    subscription = await scene.open()
    await seen(subscription)
    for _ in range(6):
        assert await subscription.next_chunk() == PING
    before = scene.store.reads
    for _ in range(60):  # ten minutes
        assert await subscription.next_chunk() == PING
    assert scene.store.reads - before <= 11


async def test_chunks_are_bounded(scene: Scene, autojump_clock: MockClock) -> None:
    turn = await scene.turn("m0", None)
    await scene.owner.begin(turn)
    scene.owner.say("\x01" * 1_000_000)
    subscription = await scene.open()
    sizes: list[int] = []
    text: list[Any] = []
    while (chunk := await subscription.next_chunk()) not in (None, PING):
        assert chunk is not None
        sizes.append(len(chunk))
        text += [frame.data["content"] for frame in parse_frames(chunk) if frame.event == "output"]
    assert "".join(text) == "\x01" * 1_000_000
    assert max(sizes) <= SETTINGS.stream_buffer_bytes
