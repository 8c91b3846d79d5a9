"""Records of owed turns that cannot be read, under a real run: each ends once with MARKER_CORRUPT, the rest goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.conftest import admin
from tests.system.audit import broken_promises, log_of
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun, until
from tests.system.sse_client import Conversation, Transcript

CONFIG = f"""
[limits]
cancel_grace_seconds = 0.5
{ECHO}"""
NOW = "clock_timestamp() - interval '1 hour'"
MARKER = (
    "INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since) "
    "SELECT organization_id, '{turn}', agent_id, conversation_id, {now}, {now} FROM conversation "
    "WHERE conversation_id = '{key}'"
)
TURN = (
    "INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, payload, "
    "status, ended_at, position, first_seq) SELECT organization_id, '{turn}', agent_id, conversation_id, '{turn}', "
    "'hi', '{on_busy}', '{payload}', '{status}', {ended}, 0, next_event_seq - 1 FROM conversation "
    "WHERE conversation_id = '{key}'"
)


class Hand:
    """Plants rows under a run that works."""

    def __init__(self, url: str) -> None:
        self.url = url

    def marker(self, turn: str, key: str) -> None:
        admin(self.url, MARKER.format(turn=turn, key=key, now=NOW))

    def turn(self, turn: str, key: str, **columns: str) -> None:
        given = {"on_busy": "enqueue", "payload": "{}", "status": "queued", "ended": "NULL", **columns}
        admin(self.url, TURN.format(turn=turn, key=key, **given))


def without_a_turn(hand: Hand, key: str, other: str) -> None:
    hand.marker("planted", key)


def with_an_unknown_wish(hand: Hand, key: str, other: str) -> None:
    admin(hand.url, "ALTER TABLE turn DROP CONSTRAINT turn_on_busy")
    hand.turn("planted", key, on_busy="defer")
    hand.marker("planted", key)


def with_a_payload_that_is_no_object(hand: Hand, key: str, other: str) -> None:
    hand.turn("planted", key, payload="[1]")
    hand.marker("planted", key)


def ended_without_an_event(hand: Hand, key: str, other: str) -> None:
    hand.turn("planted", key, status="completed", ended="now()")
    hand.marker("planted", key)


def in_another_conversation(hand: Hand, key: str, other: str) -> None:
    hand.turn("planted", key)
    hand.marker("planted", other)


PLANTS = [
    without_a_turn,
    with_an_unknown_wish,
    with_a_payload_that_is_no_object,
    ended_without_an_event,
    in_another_conversation,
]


async def hears(conversation: Conversation, message_id: str, cause: Callable[[], Awaitable[None]]) -> Transcript:
    """What a reader that is there before the cause knows once it was told an end."""
    transcript = Transcript()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transcript.follow, conversation, lambda: message_id in transcript.terminals)
            await transcript.changed()
            await cause()
    return transcript


async def alarms(run: LobuRun, expected: int) -> None:
    """A line may come up to a second behind what was done with it."""
    await until(lambda: run.errors().count("marker corrupt") >= expected, "the alarms are in the log")
    assert run.errors().count("marker corrupt") == expected, run.log()


@pytest.mark.parametrize("plant", PLANTS)
async def test_its_client_is_told_and_all_others_are_answered(
    start_run: Start, plant: Callable[[Hand, str, str], None]
) -> None:
    run = await start_run(config=CONFIG)
    conversation, other = await client_of(run).open(), await client_of(run).open()
    assert (await conversation.ask("one")).event == "complete"
    accepted: list[str] = []

    async def cause() -> None:
        plant(Hand(run.database_url), conversation.key, other.key)
        for asked in (conversation, other):
            accepted.append(await asked.send("two"))

    transcript = await hears(conversation, "planted", cause)
    told = transcript.terminals["planted"]
    assert (told.event, told.data["errorCode"]) == ("agent-error", "MARKER_CORRUPT")
    assert transcript.faults == []
    for asked, message_id in zip((conversation, other), accepted, strict=True):
        assert (await asked.terminal_of(message_id)).data["finalText"] == "two"
    assert (await conversation.ask("three")).data["finalText"] == "three"
    ends = [name for _, _, name in log_of(run.database_url, conversation.key)]
    assert ends.count("planted") == 1
    await alarms(run, 1)
    assert broken_promises(run.database_url, accepted=accepted) == []


async def test_found_at_start_they_hold_up_neither_each_other_nor_what_can_be_done(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    conversations = [await client_of(run).open() for _ in range(4)]
    sound = [await conversation.send("hang") for conversation in conversations]
    await run.kill_all()
    hand = Hand(run.database_url)
    for number, conversation in enumerate(conversations):
        hand.marker(f"lost{number}", conversation.key)
        hand.turn(f"odd{number}", conversation.key, payload="[1]")
        hand.marker(f"odd{number}", conversation.key)
    await run.start()
    for number, asked in enumerate(conversations):
        conversation = asked.through(client_of(run))
        for name in (f"lost{number}", f"odd{number}"):
            assert (await conversation.terminal_of(name)).data["errorCode"] == "MARKER_CORRUPT"
        answer = await conversation.client.call("POST", f"{conversation.path}/cancel", {"messageId": sound[number]})
        assert answer.status == 202
        assert (await conversation.terminal_of(sound[number])).event == "cancelled"
    await alarms(run, 8)
    assert broken_promises(run.database_url, accepted=sound) == []


async def test_a_marker_whose_event_is_there_only_goes(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open()
    message_id = await conversation.send("one")
    await conversation.terminal_of(message_id)
    [[turn_id]] = admin(run.database_url, f"SELECT turn_id FROM turn WHERE message_id = '{message_id}'")
    before = log_of(run.database_url, conversation.key)
    Hand(run.database_url).marker(str(turn_id), conversation.key)
    await run.stop()
    await run.start()
    await until(lambda: admin(run.database_url, "SELECT count(*) FROM turn_marker") == [(0,)], "it is settled")
    assert log_of(run.database_url, conversation.key) == before
    await alarms(run, 1)
    assert broken_promises(run.database_url, accepted=[message_id]) == []
