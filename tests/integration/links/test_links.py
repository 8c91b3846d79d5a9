"""Links on real sockets: what is asked and told over them, and what a neighbour that is slow or gone cannot do."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from structlog.testing import capture_logs

from lobu_actors.contract.events import EventType
from lobu_actors.gateway.feed import LiveText
from lobu_actors.gateway.link import session, wire
from lobu_actors.gateway.link.client import LinkClient, LinkPhase
from lobu_actors.gateway.link.detached import Detached
from lobu_actors.gateway.protocol import CancelResult
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.records import Event
from supervisor.links import serving
from tests.fakes.linked_host import REF, SLOWLY_READ, TOKENS, linked_host, until, until_linked, until_text
from tests.integration.links.conftest import CLAIMS, Pair, open_raw


async def test_every_call_reaches_the_owner(pair: Pair, make_scene: Any) -> None:
    a, b = pair.a, pair.b
    await make_scene(a.store)
    b.own(REF, 1)
    a.owners.heard(REF, "b")
    session_file = bytes(range(256)) * 9000  # some pieces of it
    b.local.sessions[REF], b.local.purge_result = session_file, 3
    with trio.fail_after(10):
        assert await a.router.cancel(REF, "m") is CancelResult.ACCEPTED
        b.local.cancel_result = CancelResult.NOTHING_TO_CANCEL
        assert await a.router.cancel(REF, None) is CancelResult.NOTHING_TO_CANCEL
        await a.router.answered(REF, "q", "ü" * 100_000)
        assert await a.router.session_bytes(REF) == session_file
        assert await a.router.purge_snapshots(REF, "run") == 3
        assert await a.router.close(REF) is False
        assert (await a.router.live_status(REF)).streams == 0
    assert (b.local.cancels, b.local.answers) == ([(REF, "m"), (REF, None)], [("q", "ü" * 100_000)])
    assert (b.local.purges, b.local.closes) == ([(REF, "run")], [REF])
    assert a.local.cancels == []


async def test_hints_of_one_conversation_keep_their_order_and_wait_for_no_other(pair: Pair) -> None:
    """What interrupts must not come before what it interrupts."""
    to_b = pair.a.peers.client("b")
    assert to_b is not None
    other = REF._replace(conversation_id="echo_bob_acme")
    for ref, message_id in ((REF, SLOWLY_READ), (REF, "second"), (other, "of another")):
        assert to_b.hint(ref, message_id)
    await until(lambda: pair.b.hints)
    assert pair.b.hints == [(other, "of another")], "which came last, and waits for nobody"
    pair.b.let_go.set()
    await until(lambda: len(pair.b.hints) == 3)
    assert pair.b.hints == [(other, "of another"), (REF, SLOWLY_READ), (REF, "second")]
    assert to_b.hint(REF, "third")
    await until(lambda: pair.b.hints[3:] == [(REF, "third")])


async def test_each_hint_of_a_long_line_has_its_own_time(pair: Pair) -> None:
    """A store that is slow for each of them must not lose those behind: an interrupt would wait for the run's end."""
    to_b = pair.a.peers.client("b")
    assert to_b is not None
    for message_id in (SLOWLY_READ, SLOWLY_READ, "last"):
        assert to_b.hint(REF, message_id)
    await until(lambda: pair.b.hint_deadlines)
    began = trio.current_time()
    await until(lambda: trio.current_time() > began + 0.1)
    pair.b.let_go.set()
    await until(lambda: len(pair.b.hints) == 3)
    first, second, last = pair.b.hint_deadlines
    assert began + serving.CALL_SECONDS >= first, "it is bounded"
    assert first + 0.1 <= second <= last, "a time of its own, from when it was its turn"


async def test_a_wrong_guess_is_put_right_by_whoever_was_asked(pair: Pair) -> None:
    """`a` believes that `b` owns it; `b` knows that `a` does: then it is asked here."""
    a, b = pair.a, pair.b
    a.owners.heard(REF, "b")
    b.owners.heard(REF, "somewhere")
    b.local.cancel_result = CancelResult.UNREACHABLE
    with trio.fail_after(5):
        assert await a.router.cancel(REF, "m") is CancelResult.ACCEPTED
    assert (len(b.local.cancels), len(a.local.cancels)) == (1, 1)
    assert a.owners.elsewhere(REF) == "somewhere"


async def test_what_is_told_is_what_was_written_through_cuts(pair: Pair) -> None:
    a, b = pair.a, pair.b
    with a.router.open_feed(REF) as feed, trio.fail_after(30):
        writer = b.own(REF, 5, last_seq=2)
        text = LiveText("m", 1, 2, "")
        writer.begin_text(text)
        writer.append_text("one ")
        await until_text(feed, "one ")
        assert (feed.epoch, feed.last_seq, feed.unheard) == (5, 2, False)
        for word in ("two ", "three ", "😀 "):
            pair.proxy.cut()
            await until(lambda: not (not feed.unheard or feed.text is not None))
            writer.append_text(word)
            pair.proxy.heal()
            await until_text(feed, text.whole())
        assert text.whole() == "one two three 😀 "
        event = Event(REF, 3, "t", EventType.COMPLETE, {"messageId": "m"}, "r")
        writer.durable(event)
        writer.end_text()
        await until(lambda: feed.text is None)
        assert feed.items[-1].event == event
        writer.durable(replace(event, seq=4, data={"finalText": "x" * wire.MAX_EVENT_BYTES}))
        await until(lambda: not (feed.last_seq < 4))
        assert feed.items[-1].event == event, "too long to be told: it is in the log"


async def test_one_conversation_is_followed_once_and_no_longer_than_it_is_read(pair: Pair) -> None:
    a, b = pair.a, pair.b
    b.own(REF, 1)
    with trio.fail_after(10):
        with a.router.open_feed(REF) as one, a.router.open_feed(REF) as two:
            assert one is two
            await until(lambda: b.local.feeds.readers(REF))
            assert b.local.feeds.readers(REF) == 1
        await until(lambda: not (b.local.feeds.readers(REF)))


async def test_readers_that_come_and_go_in_haste_end_with_the_link_as_it_was(pair: Pair) -> None:
    a, b = pair.a, pair.b
    refs = [REF._replace(conversation_id=f"echo_ann_acme_{number}") for number in range(1200)]
    for ref in refs[:5]:
        b.own(ref, 1).begin_text(LiveText("m", 1, 0, "hello"))
    links = pair.proxy.accepted
    for _round in range(20):
        with ExitStack() as reading:
            feeds = [reading.enter_context(a.router.open_feed(ref)) for ref in refs]
            await trio.sleep(0.002 * (_round % 3))
            if _round == 19:
                await until(lambda: all(feed.text is not None for feed in feeds[:5]))  # noqa: B023
    await until(lambda: not any(b.local.feeds.readers(ref) for ref in refs))
    assert pair.proxy.accepted == links


async def test_the_reader_follows_the_conversation_from_host_to_host(pair: Pair) -> None:
    """Also to its own host, and whatever an old owner goes on to say."""
    a, b = pair.a, pair.b
    with a.router.open_feed(REF) as feed, trio.fail_after(20):
        old = b.own(REF, 1)
        old.begin_text(LiveText("m", 1, 0, "there"))
        await until_text(feed, "there")
        assert a.owners.elsewhere(REF) == "b"
        mine = a.own(REF, 2)
        mine.begin_text(LiveText("m", 2, 1, "here"))
        old.append_text(" and more")
        await trio.sleep(0.05)
        await until_text(feed, "here")
        b.owners.gave_up(REF)
        a.owners.gave_up(REF)
        mine.end_text()
        third = b.own(REF, 3)
        third.begin_text(LiveText("m", 3, 2, "there again"))
        await until_text(feed, "there again")


async def test_a_peer_that_does_not_read_is_cut_and_costs_little(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "STALLED_SECONDS", 0.3)
    monkeypatch.setattr(session, "SILENT_SECONDS", 30)
    writer = pair.b.own(REF, 1)
    writer.begin_text(LiveText("m", 1, 0))
    with capture_logs() as logs, trio.fail_after(20):
        async with open_raw(pair.b, TOKENS.sign(CLAIMS)) as websocket:
            await websocket.send_message(wire.encode(wire.Hello(1, 1)))
            await websocket.get_message()
            await websocket.send_message(wire.encode(wire.Follow(((1, REF),))))
            while not any(line["event"] == "link ended" for line in logs):
                writer.append_text("x" * 100_000)
                await trio.sleep(0.01)
    assert "the other side does not read" in [line.get("reason") for line in logs]


async def test_a_cable_that_is_pulled_is_noticed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SILENT_SECONDS", 0.3)
    pair.proxy.stall()
    with trio.fail_after(10):
        await until(lambda: pair.a.peers.client("b") is None)
        assert pair.a.peers.phases["b"] is not LinkPhase.GONE, "nobody said that it is gone"
        pair.proxy.heal()
        await until_linked(pair.a, pair.b)


async def test_nothing_waits_for_a_host_that_is_away(pair: Pair) -> None:
    a = pair.a
    a.owners.heard(REF, "b")
    client = a.peers.client("b")
    assert client is not None
    pair.proxy.cut()
    with trio.fail_after(5):
        await until(lambda: not (client.up))
    with trio.fail_after(10):  # a call that waits for its answer does so for longer
        assert await client.cancel(REF, "m") is CancelResult.UNREACHABLE
        assert not client.hint(REF, "m")
        assert await client.session_bytes(REF) is None
        assert await client.live_status(REF) is None
        assert await a.router.cancel(REF, "m") is CancelResult.ACCEPTED  # asked here: the lease has the last word
    assert a.local.cancels == [(REF, "m")]


async def test_calls_under_way_end_with_their_link(pair: Pair) -> None:
    client = pair.a.peers.client("b")
    assert client is not None
    pair.proxy.stall()
    results: list[CancelResult] = []

    async def cancel() -> None:
        assert client is not None
        results.append(await client.cancel(REF, "m"))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            await trio.sleep(0.05)
            pair.proxy.cut()
    assert results == [CancelResult.UNREACHABLE]


async def test_a_host_that_is_gone_is_known_to_be(pair: Pair) -> None:
    pair.proxy.target = 1  # nobody listens there, but the proxy does: not proof enough
    pair.b.context.stopping.set()
    with trio.fail_after(10):
        client = LinkClient("b", pair.b.url, "a", TOKENS, pair.a.peers.mirrors)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await until(lambda: client.phase is LinkPhase.GONE)
            nursery.cancel_scope.cancel()


async def test_an_edge_of_its_own_asks_its_supervisor_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "links"
    store = MemoryStore()
    async with linked_host(store, "b", unix_path=path) as b, trio.open_nursery() as nursery:
        assert path.stat().st_mode & 0o777 == 0o600
        edge = Detached(lambda: "b", f"unix:{path}", store.find_peers, store.find_owner, TOKENS, lambda: 1)
        nursery.start_soon(edge.run)
        await until(lambda: edge.client() is not None)
        with trio.fail_after(10):
            assert await edge.gateway.cancel(REF, None) is CancelResult.ACCEPTED
            with edge.gateway.open_feed(REF) as feed:
                b.own(REF, 1).begin_text(LiveText("m", 1, 0, "hello"))
                await until_text(feed, "hello")
            client = edge.client()
            assert client is not None
            assert client.hint(REF, "m")
            await until(lambda: b.hints == [(REF, "m")])
            b.local.drain()
            await until(lambda: edge.gateway.draining)
        nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_what_is_said_of_links_is_what_they_are(pair: Pair) -> None:
    a, b = pair.a, pair.b
    await until(lambda: a.peers.links().worst[0].lag_seconds is not None)
    [link] = a.peers.links().worst
    assert (a.peers.links().up, a.peers.links().down, link.host_id, link.up) == (1, 0, "b", True)
    assert link.lag_seconds is not None
    assert 0 < link.lag_seconds < session.SILENT_SECONDS
    await a.store.register_host("c", name="c", link_url=None, version="1", ttl_seconds=1e6)
    await until(lambda: a.peers.links().down == 1)
    assert [(link.host_id, link.up, link.lag_seconds is None) for link in a.peers.links().worst] == [
        ("c", False, True),
        ("b", True, False),
    ]
    assert b.peers.links().up == 1
