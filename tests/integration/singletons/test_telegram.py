"""A bot's messages become turns once, whatever comes between, and their ends come to the chat."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import structlog
import trio

from lobu_actors.contract.events import EventType
from lobu_actors.contract.states import DeliveryStatus, OnBusy
from lobu_actors.gateway.protocol import CancelResult
from lobu_actors.store.records import Turn, Verdict
from supervisor.singletons.singleton import LOOK_SECONDS, STOP_SECONDS
from supervisor.singletons.telegram import poller as module
from tests.fakes.telegram import CUT, TOKEN, Failure
from tests.integration.singletons.conftest import CHAT, Trust, World, until, until_asked


async def started(world: World, host_id: str = "h1") -> None:
    await world.run(world.poller(await world.host(host_id)))
    await until(lambda: world.telegram.polls, "it polls")


async def delivered(world: World, count: int) -> None:
    """So many debts, all of them paid."""

    async def all_paid() -> bool:
        found = await world.deliveries()
        return len(found) == count and all(status == "delivered" for _, status, _ in found)

    await until_asked(all_paid, f"{count} deliveries")


async def test_a_message_becomes_a_turn_and_its_reply_comes_to_the_chat(world: World) -> None:
    world.gateway.on_accepted = world.answer_at_once
    await started(world)
    key = world.telegram.say(CHAT, "hello")
    await until(lambda: world.telegram.sent, "the reply")
    assert world.telegram.texts(CHAT) == ["you said hello"]
    assert await world.turns() == [(key, "hello")]
    [turn] = world.gateway.hints
    assert turn.ref == world.ref()
    assert turn.payload["senderName"] == "Ann"
    await until(lambda: world.telegram.unconfirmed == 0, "the update is confirmed")
    await delivered(world, 1)


async def test_messages_keep_their_order_and_a_chat_that_waits_holds_up_no_other(world: World) -> None:
    await started(world)
    world.telegram.say(CHAT, "slow")
    world.telegram.say(-100, "fast", chat_type="group")
    world.telegram.say(CHAT, "second")
    await until(lambda: len(world.gateway.hints) == 3, "all are accepted")
    slow, fast, second = world.gateway.hints
    await world.end(fast, "at once")
    await until(lambda: world.telegram.texts(-100) == ["at once"], "the other chat's reply")
    [sent] = world.telegram.sent
    assert sent.reply_to == fast.payload["platformMessageId"], "in a group it says what it answers"
    await until(lambda: CHAT in world.telegram.typing, "the waiting chat is shown that somebody works")
    await world.end(slow, "1")
    await world.end(second, "2")
    await until(lambda: world.telegram.texts(CHAT) == ["1", "2"], "in order")


async def test_an_update_is_confirmed_only_when_its_turn_is_committed(world: World) -> None:
    """Whoever takes over finds the same update, and the same turn."""
    held = trio.Event()

    async def hang(turn: object) -> None:
        held.set()
        await trio.sleep_forever()

    world.gateway.on_accepted = hang
    first = await world.run(world.poller(await world.host("h1")))
    key = world.telegram.say(CHAT, "hello")
    await held.wait()
    assert world.telegram.unconfirmed == 1
    first.stopping.set()
    world.gateway.on_accepted = world.answer_at_once
    await world.run(world.poller(await world.host("h2")))
    await until(lambda: world.telegram.texts(CHAT) == ["you said hello"], "the reply")
    await until(lambda: world.telegram.unconfirmed == 0, "the update is confirmed")
    await delivered(world, 1)
    assert await world.turns() == [(key, "hello")]
    assert world.telegram.texts(CHAT) == ["you said hello"]


async def test_lower_numbers_after_a_quiet_week_are_not_thrown_away(world: World) -> None:
    world.gateway.on_accepted = world.answer_at_once
    await started(world)
    world.telegram.say(CHAT, "one")
    await until(lambda: world.telegram.unconfirmed == 0, "confirmed")
    polls = len(world.telegram.polls)
    await until(lambda: len(world.telegram.polls) > polls, "the poll that confirmed is over")
    world.telegram.begin_lower()
    world.telegram.say(CHAT, "two")
    await until(lambda: world.telegram.texts(CHAT) == ["you said one", "you said two"], "both")


async def test_commands(world: World) -> None:
    await started(world)
    world.telegram.say(CHAT, "/start")
    await until(lambda: world.telegram.texts(CHAT) == [module.GREETING], "a greeting")
    world.telegram.say(CHAT, "/new@lobu_test_bot")
    await until(lambda: world.gateway.hints, "a turn")
    [turn] = world.gateway.hints
    assert (turn.content, turn.on_busy) == ("/new", OnBusy.INTERRUPT)
    world.telegram.say(CHAT, "/stop")
    await until(lambda: world.gateway.cancels, "a cancel")
    assert world.gateway.cancels == [(world.ref(), None)]
    await world.end(turn, "", EventType.CANCELLED)
    await until(lambda: world.telegram.texts(CHAT)[1:] == ["Stopped."], "its end says so")
    world.gateway.cancel_result = CancelResult.NOTHING_TO_CANCEL
    world.telegram.say(CHAT, "/stop")
    await until(lambda: world.telegram.texts(CHAT)[2:] == [module.NOTHING_TO_STOP], "it says so")
    world.telegram.say(-100, "/stop", chat_type="group")
    await until(lambda: world.telegram.texts(-100) == [module.NOTHING_TO_STOP], "where nothing was ever said, too")
    assert len(world.gateway.cancels) == 2


async def test_what_is_no_text_is_said_to_be_so_and_what_is_not_for_it_is_left(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        await started(world)
        world.telegram.say(CHAT, None, photo=[{}])
        world.telegram.say(-100, None, chat_type="group", photo=[{}])
        world.telegram.say(CHAT, None, new_chat_members=[])
        world.telegram.say(CHAT, "é" * 1501)  # of 3000 bytes
        for _ in range(2):
            world.telegram.say(666, "let me in")
        world.telegram.update({"edited_message": {"text": "x"}})
        await until(lambda: world.telegram.texts(CHAT) == [module.ONLY_TEXT, module.TOO_LONG], "two notices")
        await until(lambda: world.telegram.unconfirmed == 0, "all are confirmed")
    assert await world.turns() == []
    assert world.telegram.texts(666) == world.telegram.texts(-100) == []
    assert [line["chat"] for line in logs if "allowed_chats" in line["event"]] == [666], "once, with the id to allow"


async def test_refusals_are_told(world: World) -> None:
    await started(world)
    for number in range(5):
        world.telegram.say(CHAT, str(number))
    await until(lambda: world.telegram.unconfirmed == 0, "all are confirmed")
    for turn in world.gateway.hints:
        await world.end(turn, turn.content)
    full = module.REFUSALS["full"]
    await until(lambda: world.telegram.texts(CHAT) == ["0", "1", "2", full, full], "three turns may be owed")


async def test_a_guardrails_verdict_is_stored_with_the_turn(world: World) -> None:
    world.verdict = Verdict("GUARDRAIL_REJECTED", "Not allowed.")
    await started(world)
    world.telegram.say(CHAT, "forbidden")
    await until(lambda: world.gateway.hints, "the turn")
    assert world.gateway.hints[0].verdict == world.verdict


async def test_errors_are_told_as_a_sentence_with_the_code(world: World) -> None:
    await started(world)
    world.telegram.say(CHAT, "hang")
    await until(lambda: world.gateway.hints, "the turn")
    await world.end(world.gateway.hints[0], "", EventType.AGENT_ERROR)
    await until(lambda: world.telegram.sent, "the end")
    [text] = world.telegram.texts(CHAT)
    assert text.endswith("(NO_PROGRESS)")


async def test_long_replies_come_in_parts(world: World) -> None:
    await started(world)
    world.telegram.say(CHAT, "long")
    await until(lambda: world.gateway.hints, "the turn")
    reply = "\n".join(f"{number} " + "\U0001f600" * 2000 for number in range(3))
    await world.end(world.gateway.hints[0], reply)
    await delivered(world, 1)
    assert "".join(world.telegram.texts(CHAT)) == reply
    assert len(world.telegram.sent) > 1


async def test_a_successor_goes_on_with_the_part_behind_the_last_that_was_noted(world: World) -> None:
    first = await world.run(world.poller(await world.host("h1")))
    world.telegram.say(CHAT, "long")
    await until(lambda: world.gateway.hints, "the turn")

    async def after_the_first_part() -> None:
        await until(lambda: world.telegram.sent, "the first part")
        world.telegram.fail("sendMessage", *[Failure(500)] * 20)

    world.nursery.start_soon(after_the_first_part)
    world.telegram.answer_delay_seconds = 0.3
    await world.end(world.gateway.hints[0], "a" * 4096 + "b" * 4096 + "c")
    await until(lambda: len(world.telegram.failures.get("sendMessage", ())) in range(1, 20), "the second part fails")
    first.stopping.set()
    await trio.sleep(0.3)
    world.telegram.failures.clear()
    await world.run(world.poller(await world.host("h2")))
    await delivered(world, 1)
    assert [text[0] for text in world.telegram.texts(CHAT)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "failures",
    [
        [Failure(500), Failure(502, raw=b"<html>")],
        [CUT, CUT],
        [Failure(200, raw=b"[]"), Failure(200, raw=b"{")],
        [Failure(429, parameters={"retry_after": 1})],
        [Failure(401), Failure(409)],
    ],
)
async def test_a_reply_is_sent_again_until_it_is_taken(world: World, failures: list[Failure]) -> None:
    world.gateway.on_accepted = world.answer_at_once
    await started(world)
    world.telegram.fail("sendMessage", *failures)
    began = trio.current_time()
    world.telegram.say(CHAT, "hello")
    await until(lambda: world.telegram.sent, "the reply")
    await delivered(world, 1)
    assert world.telegram.texts(CHAT) == ["you said hello"]
    if failures[0].code == 429:
        assert trio.current_time() - began >= 1


async def test_a_chat_that_is_gone_is_recorded_and_not_tried_for_ever(world: World) -> None:
    world.gateway.on_accepted = world.answer_at_once
    world.telegram.blocked.add(CHAT)
    world.telegram.gone.add(-100)
    await started(world)
    world.telegram.say(CHAT, "hello")
    world.telegram.say(-100, "hello", chat_type="group")

    async def recorded() -> bool:
        return {status for _, status, _ in await world.deliveries()} == {DeliveryStatus.UNDELIVERABLE.value}

    await until_asked(recorded, "both are recorded")
    errors = {error for _, _, error in await world.deliveries()}
    assert errors == {"403: Forbidden: bot was blocked by the user", "400: Bad Request: chat not found"}
    tries = world.telegram.calls.count("sendMessage")
    world.telegram.blocked.clear()
    world.telegram.say(CHAT, "back again")
    await until(lambda: world.telegram.texts(CHAT) == ["you said back again"], "the next reply comes")
    assert world.telegram.calls.count("sendMessage") == tries + 1


async def test_a_group_that_moved_is_followed(world: World) -> None:
    world.gateway.on_accepted = world.answer_at_once
    world.telegram.moved[-100] = -1009
    await started(world)
    world.telegram.say(-100, "hello", chat_type="group")
    await until(lambda: world.telegram.texts(-1009) == ["you said hello"], "the reply, where the group is now")


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ([Failure(500), Failure(500)], "getUpdates: 500"),
        ([CUT, CUT], "getUpdates: RemoteProtocolError"),
        ([Failure(200, raw=b"{"), Failure(200, raw=b"\xff")], "getUpdates: the answer is not JSON"),
        ([Failure(200, raw=b'{"ok": true, "result": 5}')] * 2, "getUpdates did not give a list"),
        ([Failure(200, raw=b'{"ok": true, "result": [5]}')] * 2, "an update has no update_id"),
        ([Failure(409, "Conflict")] * 2, "409: Conflict"),
        ([Failure(429, parameters={"retry_after": 1})], "too many requests; asked to wait for 1 s"),
        ([Failure(302, raw=b'{"ok": false, "description": "moved"}')], "getUpdates: 302"),
    ],
)
async def test_a_poll_that_fails_is_said_once_and_tried_again(world: World, failures: list[Failure], said: str) -> None:
    world.gateway.on_accepted = world.answer_at_once
    world.telegram.fail("getUpdates", *failures)
    with structlog.testing.capture_logs() as logs:
        await world.run(world.poller(await world.host("h1")))
        began = trio.current_time()
        world.telegram.say(CHAT, "hello")
        await until(lambda: world.telegram.sent, "the reply")
        assert trio.current_time() - began >= 0.5, "not at once"
        await until(lambda: any(line["event"] == "telegram answers again" for line in logs), "it is said")
    troubles = [line["error"] for line in logs if line["event"] == "telegram cannot be polled"]
    assert troubles == [said]
    assert [line["event"] for line in logs].count("telegram answers again") == 1
    assert TOKEN not in str(logs)


async def test_a_bad_token_is_said_and_not_asked_with_again_and_again(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        bad = TOKEN.replace("A", "B")
        await world.run(world.poller(await world.host("h1"), token=bad))
        await until(lambda: any("polled" in line["event"] for line in logs), "it is said")
        await trio.sleep(2)
    [line] = [line for line in logs if "polled" in line["event"]]
    assert line["hint"] == "the token is wrong or was revoked"
    assert world.telegram.calls == ["getMe"]
    assert bad not in str(logs)


async def test_no_poll_is_asked_to_outlast_the_trust(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one that is under way when the process stands still is over before anybody else may poll."""
    monkeypatch.setattr(module, "MARGIN_SECONDS", 3.0)  # for this process, too, which is both ends of the way
    trust = await world.host("h1")
    trust.trusted_until = trio.current_time() + 6
    await world.run(world.poller(trust))
    ends = trust.trusted_until - STOP_SECONDS
    await until(lambda: trio.current_time() > trust.trusted_until, "the trust is over")
    assert world.telegram.polls
    for poll in world.telegram.polls:
        assert poll.began + poll.timeout <= ends
        assert poll.ended <= ends


async def test_never_two_pollers_however_hosts_come_and_go(world: World) -> None:
    """The fake counts overlaps, and the world's end asserts that there was none."""
    world.gateway.on_accepted = world.answer_at_once
    sent = []
    for number in range(6):
        trust = await world.host(f"h{number}")
        trust.trusted_until = trio.current_time() + 3
        await world.run(world.poller(trust))
        sent.append(f"you said {number}")
        world.telegram.say(CHAT, str(number))

        def replied(trust: Trust = trust, expected: Sequence[str] = tuple(sent)) -> bool:
            trust.trusted_until = trio.current_time() + 3  # renewed as long as it has work
            return world.telegram.texts(CHAT) == list(expected)

        await until(replied, "its reply")
        await until(lambda end=trust.trusted_until: trio.current_time() > end, "its trust ends")
    assert len(await world.turns()) == 6


async def test_a_predecessor_that_stood_still_does_nothing_more(world: World) -> None:
    """It took an update in and stands still, deaf to cancellation; its successor does it all, before it wakes."""
    asleep, awake = trio.Event(), trio.Event()

    async def stand_still(turn: Turn) -> None:
        if asleep.is_set():
            await world.answer_at_once(turn)
            return
        asleep.set()
        with trio.CancelScope(shield=True):
            await awake.wait()

    world.gateway.on_accepted = stand_still
    first = await world.host("h1")
    await world.run(world.poller(first))
    key = world.telegram.say(CHAT, "hello")
    await asleep.wait()
    of_the_first = {poll.client for poll in world.telegram.polls}
    first.trusted_until = trio.current_time()
    await trio.sleep(2 * LOOK_SECONDS)  # no real trust ends sooner than it was to
    await world.store.declare_host_dead("h1")
    await world.run(world.poller(await world.host("h2")))
    await until(lambda: world.telegram.sent, "the reply")
    polls = len(world.telegram.polls)
    awake.set()
    await delivered(world, 1)
    await trio.sleep(1)
    assert world.telegram.texts(CHAT) == ["you said hello"]
    assert await world.turns() == [(key, "hello")]
    # On a line of its own it would have met the other's poll, which the world's end looks for.
    assert not [poll for poll in world.telegram.polls[polls:] if poll.client in of_the_first], "it has not polled again"
