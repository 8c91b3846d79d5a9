"""Who may write a feed, and what its readers are sent to the log for."""

from __future__ import annotations

import pytest

from lobu_actors.contract.events import Cursor, EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Behind, Feed, FeedReader, LiveText
from lobu_actors.gateway.link import wire
from lobu_actors.gateway.link.mirror import Mirror
from lobu_actors.gateway.link.source import FeedSource
from lobu_actors.gateway.waiting import Line
from lobu_actors.gateway.writer import FeedWriter
from lobu_actors.runtime.timers import Timers
from lobu_actors.store.records import Event

REF = ConversationRef("acme", "echo", "c")


def feed() -> Feed:
    made = Feed(lambda: 1, Line(Timers()))
    made.readers = 1
    return made


def question(seq: int, attempt: int | None = 1, offset: int | None = 3) -> Event:
    return Event(REF, seq, "t", EventType.QUESTION, {"messageId": "m"}, "r", attempt, offset)


def shown(reader: FeedReader) -> list[tuple[str, str]]:
    return [(outgoing.type.value, str(outgoing.data.get("content", ""))) for outgoing in reader.take()]


def test_the_newest_epoch_writes_whenever_it_comes() -> None:
    read = feed()
    new = FeedWriter(read, 5, 0)
    old = FeedWriter(read, 4, 0)
    assert (new.writes, old.writes) == (True, False)
    new.begin_text(LiveText("m", 2, 0, "new"))
    old.begin_text(LiveText("m", 1, 0, "old"))
    old.append_text(" and more")
    old.transient(EventType.STATUS, {})
    old.end_text()
    assert read.text is not None
    assert (read.text.whole(), len(read.items)) == ("new", 0)
    newest = FeedWriter(read, 6, 0)
    assert (read.text, new.writes, newest.writes) == (None, False, True)


def test_what_a_fenced_writer_committed_before_is_read_in_the_log() -> None:
    read = feed()
    reader = FeedReader(read, Cursor(0))
    old = FeedWriter(read, 1, 0)
    FeedWriter(read, 2, 0)
    old.durable(question(1))
    with pytest.raises(Behind):
        reader.take()


def test_a_reader_is_sent_to_the_log_once_for_what_it_lacks() -> None:
    read = feed()
    reader = FeedReader(read, Cursor(0))
    FeedWriter(read, 1, last_seq=4)
    with pytest.raises(Behind):
        reader.take()
    reader.attach()  # and then it reads the log, in which 1 to 4 may have been trimmed
    assert reader.take() == []
    read.look()
    with pytest.raises(Behind):
        reader.take()
    reader.attach()
    assert reader.take() == []


def test_an_event_whose_text_is_not_here_says_how_much_is() -> None:
    """The text comes behind the event then, from where the reader is."""
    read = feed()
    reader = FeedReader(read, Cursor(0))
    [event] = reader.replay(question(1), over=False)
    assert event.cursor == Cursor(1, 1, 0)
    FeedWriter(read, 1, 1).begin_text(LiveText("m", 1, 0, "before and behind"))
    assert shown(reader) == [("output", "before and behind")]


def test_an_event_whose_text_cannot_come_any_more_has_a_bare_id() -> None:
    [event] = FeedReader(feed(), Cursor(0)).replay(question(1), over=True)
    assert event.cursor == Cursor(1)


def test_a_reader_that_has_more_than_is_told_here_gets_nothing_of_the_run_before() -> None:
    read = feed()
    writer = FeedWriter(read, 1, 0)
    writer.begin_text(LiveText("old", 1, 0, "of the run that ended with event 1"))
    reader = FeedReader(read, Cursor(2))
    reader.resume_behind(question(2), text_start=1)
    assert shown(reader) == []
    writer.end_text()
    writer.begin_text(LiveText("m", 1, 1, "before and behind"))
    assert shown(reader) == [("output", "ore and behind")]


def test_a_mirror_that_lost_its_owner_shows_nothing_and_goes_on_where_it_was() -> None:
    there, here = feed(), feed()
    writer = FeedWriter(there, 3, 0)
    writer.begin_text(LiveText("m", 1, 0, "some"))
    mirror, reader = Mirror(REF, here), FeedReader(here, Cursor(0))
    source = FeedSource(1, there, 3)
    assert not mirror.live
    while frame := source.next():
        mirror.take(wire.from_server(frame))
    assert mirror.live
    assert shown(reader) == [("output", "some")]
    mirror.end()
    assert not mirror.live
    assert here.text is None
    writer.append_text(" more")
    source = FeedSource(1, there, 3)
    while frame := source.next():
        mirror.take(wire.from_server(frame))
    assert shown(reader) == [("output", " more")]


def test_a_follower_that_fell_behind_is_told_the_state_anew() -> None:
    there = feed()
    writer = FeedWriter(there, 3, 0)
    source = FeedSource(1, there, 3)
    assert isinstance(wire.from_server(source.next() or ""), wire.Live)
    for seq in range(1, 400):
        writer.durable(question(seq, None, None))
    again = wire.from_server(source.next() or "")
    assert isinstance(again, wire.Live)
    assert again.last_seq == 399
    assert source.next() is None


@pytest.mark.parametrize(
    "messages",
    [
        [wire.Appended(1, 0, "x")],
        [wire.TextEnded(1)],
        [wire.Durable(1, 1, EventType.CLOSED, {})],
        [wire.Live(1, 1, 0), wire.Appended(1, 0, "x")],
        [wire.Live(1, 1, 0, wire.Text("m", 1, 0, "ab", 2)), wire.Appended(1, 1, "x")],
        [wire.Live(1, 1, 0), wire.State(draining=True)],
    ],
)
def test_what_does_not_go_on_where_the_last_ended_breaks_the_link(messages: list[wire.Message]) -> None:
    mirror = Mirror(REF, feed())
    for message in messages[:-1]:
        mirror.take(message)
    with pytest.raises(wire.WireError):
        mirror.take(messages[-1])
