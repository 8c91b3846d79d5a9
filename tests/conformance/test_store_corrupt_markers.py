"""Markers that are at odds with other rows: read as such, mended without an end, and never in the others' way."""

from __future__ import annotations

import attrs
import psycopg
import pytest
from msgspec.structs import replace

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.memory.tables import MarkerRow
from lobu_actors.store.records import FinishRun, TurnEnd, Verdict

SENTENCE = "The record of this turn could not be read; send the message again."
CORRUPT = Verdict("MARKER_CORRUPT", SENTENCE)


@attrs.frozen
class Hands:
    """Changes rows as nothing of ours does: on Postgres by SQL, in memory in the tables."""

    store: object
    url: str | None

    @property
    def tables(self):
        return self.store.tables

    def run(self, statement: str, *values: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            assert connection.execute(statement, values).rowcount == 1

    def lose_turn(self, turn) -> None:
        if self.url:
            self.run("DELETE FROM turn WHERE turn_id = %s", turn.turn_id)
        else:
            del self.tables.turns[turn.ref.organization_id, turn.turn_id]
            del self.tables.turn_of_message[turn.ref, turn.message_id]

    def misplace(self, turn, ref: ConversationRef) -> None:
        if self.url:
            update = "UPDATE turn_marker SET conversation_id = %s WHERE turn_id = %s"
            self.run(update, ref.conversation_id, turn.turn_id)
        else:
            self.tables.markers[ref.organization_id, turn.turn_id].ref = ref

    def owe_again(self, turn) -> None:
        if self.url:
            self.run(
                "INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since)"
                " SELECT organization_id, turn_id, agent_id, conversation_id, accepted_at, accepted_at FROM turn"
                " WHERE turn_id = %s",
                turn.turn_id,
            )
        else:
            marker = MarkerRow(turn.ref, turn.turn_id, turn.accepted_at)
            self.tables.markers[turn.ref.organization_id, turn.turn_id] = marker

    def set_status(self, turn, status: str) -> None:
        if self.url:
            ended = "NULL" if status in ("queued", "running") else "now()"
            self.run(f"UPDATE turn SET status = %s, ended_at = {ended} WHERE turn_id = %s", status, turn.turn_id)
        else:
            now = self.tables.turns[turn.ref.organization_id, turn.turn_id]
            self.tables.put_turn(replace(now, status=TurnStatus(status)))

    def lose_conversation(self, ref: ConversationRef) -> None:
        if self.url:
            self.run("DELETE FROM conversation WHERE conversation_id = %s", ref.conversation_id)
        else:
            del self.tables.conversations[ref.organization_id, ref.conversation_id]


@pytest.fixture
def hands(store, store_url) -> Hands:
    return Hands(store, store_url)


def corrupt(turn, reason: str, *, ref=None, message_id=None, contradicts: bool = True) -> CorruptMarker:
    return CorruptMarker(ref or turn.ref, turn.turn_id, message_id or turn.turn_id, reason, contradicts)


def failed(turn) -> FinishRun:
    data = events.agent_error(turn.message_id, [turn.message_id], "MARKER_CORRUPT", SENTENCE, None, 1)
    end = TurnEnd(turn.turn_id, EventType.AGENT_ERROR, data)
    return FinishRun(None, RunStatus.FAILED, TurnStatus.FAILED, (end,), error_code="MARKER_CORRUPT")


async def test_a_turn_that_is_lost_comes_back_refused_and_can_be_ended(owner, hands):
    first, lost, last = [await owner.accept() for _ in range(3)]
    hands.lose_turn(lost)
    owed = await owner.store.load_owed(owner.lease, limit=10)
    assert owed == [first, corrupt(lost, "there is no such turn"), last]
    assert list((await owner.store.activate(owner.ref, "h1")).owed) == owed
    lease = replace(owner.lease, epoch=owner.lease.epoch + 1)
    for _ in range(2):  # once more after an unknown outcome
        assert await owner.store.mend_markers(lease, [lost.turn_id])
    [one, back, other] = await owner.store.load_owed(lease, limit=10)
    assert [one, other] == [first, last]
    stub = replace(lost, message_id=lost.turn_id, content="", payload={}, position=0, verdict=CORRUPT)
    assert back == stub
    [event] = await owner.store.finish_run(lease, failed(back))
    assert (event.seq, event.turn_id, event.data["messageId"]) == (1, lost.turn_id, lost.turn_id)
    assert await owner.store.load_owed(lease, limit=10) == [first, last]
    assert (await owner.store.find_turn(owner.ref, lost.turn_id)).status is TurnStatus.FAILED


async def test_a_marker_in_another_conversation_goes_home_refused(owner, hands, helpers):
    home = ConversationRef(owner.ref.organization_id, "echo", "home")
    await owner.store.open_conversation(home, "ann")
    await owner.store.accept_turn(helpers.new_turn(home, "m"), max_owed=9)
    turn = await owner.store.find_turn(home, "m")
    hands.misplace(turn, owner.ref)
    mine = await owner.accept()
    assert await owner.store.load_owed(owner.lease, limit=10) == [
        corrupt(turn, "its turn is another conversation's", ref=owner.ref),
        mine,
    ]
    assert await owner.store.mend_markers(owner.lease, [turn.turn_id, mine.turn_id])
    assert await owner.store.load_owed(owner.lease, limit=10) == [mine]
    taken = await owner.store.activate(home, "h1")
    assert taken.owed == (replace(turn, verdict=CORRUPT),)
    assert await owner.store.read_events(home, 1, limit=10) == []


@pytest.mark.parametrize("status", ["queued", "completed"])
async def test_what_has_its_end_is_owed_no_more(owner, hands, helpers, status):
    turn = await owner.accept()
    [end] = await owner.store.finish_run(owner.lease, helpers.finish(None, turn))
    hands.owe_again(turn)
    hands.set_status(turn, status)
    found = corrupt(turn, "its terminal event is in the log already")
    assert await owner.store.load_owed(owner.lease, limit=10) == [found]
    assert await owner.store.mend_markers(owner.lease, [turn.turn_id])
    assert await owner.store.load_owed(owner.lease, limit=10) == []
    assert await owner.store.read_events(owner.ref, 1, limit=10) == [end]
    assert (await owner.store.find_turn(owner.ref, turn.message_id)).status is TurnStatus.COMPLETED


async def test_an_ended_turn_without_its_event_is_corrupt_and_can_be_ended(owner, hands):
    turn = await owner.accept()
    hands.set_status(turn, "completed")
    found = corrupt(turn, "it has ended without a terminal event", message_id=turn.message_id, contradicts=False)
    assert await owner.store.load_owed(owner.lease, limit=10) == [found]
    assert await owner.store.mend_markers(owner.lease, [turn.turn_id])
    assert await owner.store.load_owed(owner.lease, limit=10) == [found]
    assert len(await owner.store.finish_run(owner.lease, failed(found))) == 1
    assert await owner.store.load_owed(owner.lease, limit=10) == []
    assert (await owner.store.find_turn(owner.ref, turn.message_id)).status is TurnStatus.FAILED


async def test_sound_ones_are_not_touched_and_losers_mend_nothing(owner, hands):
    lost, queued, running = [await owner.accept() for _ in range(3)]
    await owner.start(running)
    hands.lose_turn(lost)
    before = await owner.store.load_owed(owner.lease, limit=10)
    assert await owner.store.mend_markers(owner.lease, [queued.turn_id, running.turn_id, "no-such-turn"])
    assert await owner.store.load_owed(owner.lease, limit=10) == before
    await owner.store.release(owner.lease)
    assert not await owner.store.mend_markers(owner.lease, [lost.turn_id])
    assert list((await owner.store.activate(owner.ref, "h1")).owed) == before


async def test_markers_of_a_lost_conversation_wait_and_take_nobodys_place(owner, hands, helpers):
    other = ConversationRef(owner.ref.organization_id, "echo", "lost")
    await owner.store.open_conversation(other, "ann")
    for _ in range(3):
        await owner.store.accept_turn(helpers.new_turn(other), max_owed=9)
    await owner.accept()
    hands.lose_conversation(other)
    await owner.store.release(owner.lease)
    [owed] = await owner.store.find_owed("h1", limit=2, older_than_seconds=0.0)
    assert owed.ref == owner.ref
    await owner.store.open_conversation(other, "ann")
    assert len(await owner.store.find_owed("h1", limit=9, older_than_seconds=0.0)) == 2
    assert len((await owner.store.activate(other, "h1")).owed) == 3
