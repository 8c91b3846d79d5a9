"""A reader whose cursor is older than what retention left is told so, and then gets everything that is left."""

from __future__ import annotations

import trio

from edge.settings import EdgeSettings
from edge.subscription import Subscription
from lobu_actors.contract.events import Cursor
from lobu_actors.store.postgres import PostgresStore
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import Frame, parse_frames


async def read(world: EdgeWorld, store: PostgresStore, message_id: str, since: int | None) -> list[Frame]:
    """Everything that a reader of this message's end gets behind `since`."""
    ref = await world.conversation()
    conversation = await store.find_conversation("acme", ref.conversation_id)
    turn = await store.find_turn(ref, message_id)
    assert conversation is not None
    start = None if since is None else Cursor(since)
    raw = b""
    with world.gateway.open_feed(ref) as feed:
        subscription = Subscription(conversation, store, feed, EdgeSettings(), start=start, turn=turn)
        with trio.fail_after(10):
            while (chunk := await subscription.next_chunk()) is not None:
                raw += chunk
    return parse_frames(raw)[1:]  # without `connected`


async def world_with_trimmed_log(store: PostgresStore, *, turns: int, trimmed: int) -> EdgeWorld:
    world = await EdgeWorld.make(store=store)
    ref = await world.conversation()
    owner = await world.owner(ref)
    for number in range(1, turns + 1):
        turn = await world.message(ref, message_id=f"m{number}")
        await owner.begin(turn)
        await owner.end(turn)
    done = await store.trim(ref, older_than_seconds=0, limit=trimmed)
    assert done.events == trimmed
    return world


async def test_a_cursor_older_than_what_is_kept_gets_a_gap_and_the_rest(store: PostgresStore) -> None:
    world = await world_with_trimmed_log(store, turns=5, trimmed=3)
    frames = await read(world, store, "m5", since=1)
    assert [frame.event for frame in frames] == ["gap", "complete", "complete"]
    assert (frames[0].data["from"], frames[0].data["to"]) == (1, 4)
    assert [frame.id for frame in frames[1:]] == ["4", "5"]


async def test_a_cursor_that_is_kept_gets_no_gap(store: PostgresStore) -> None:
    world = await world_with_trimmed_log(store, turns=5, trimmed=3)
    frames = await read(world, store, "m5", since=4)
    assert [(frame.event, frame.id) for frame in frames] == [("complete", "5")]


async def test_who_had_all_that_was_trimmed_lacks_nothing(store: PostgresStore) -> None:
    world = await world_with_trimmed_log(store, turns=5, trimmed=3)
    frames = await read(world, store, "m5", since=3)
    assert [(frame.event, frame.id) for frame in frames] == [("complete", "4"), ("complete", "5")]


async def test_a_reader_of_an_owed_turn_sees_no_gap_whatever_is_trimmed(store: PostgresStore) -> None:
    world = await EdgeWorld.make(store=store)
    ref = await world.conversation()
    owner = await world.owner(ref)
    for name in ("m1", "m2"):
        turn = await world.message(ref, message_id=name)
        await owner.begin(turn)
        await owner.end(turn)
    owed = await world.message(ref, message_id="m3")
    assert (await store.trim(ref, older_than_seconds=0, limit=100)).events == 1
    await owner.begin(owed)
    await owner.end(owed)
    frames = await read(world, store, "m3", since=None)
    assert [(frame.event, frame.id) for frame in frames] == [("complete", "3")]
