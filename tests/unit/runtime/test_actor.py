"""An actor on its own: life cycle, tell, ask, crash and stop."""

import pytest
import trio
import trio.testing

from lobu_actors.runtime.actor import Actor, ActorRef, run_actor
from lobu_actors.runtime.errors import ActorStopped, AskTimeout, MailboxFull, StopTimeout
from lobu_actors.runtime.mailbox import Mailbox, Overflow


class Recorder(Actor[str]):
    """Writes down what happens to it, and obeys a few words."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gate = trio.Event()
        self.in_handler = trio.Event()

    async def started(self) -> None:
        self.log.append("started")

    async def handle(self, message: str) -> object:
        self.log.append(message)
        if message == "crash":
            raise ValueError("crash")
        if message == "wait":
            self.in_handler.set()
            await self.gate.wait()
        return message.upper()

    async def stopped(self) -> None:
        self.log.append("stopped")


async def test_it_handles_what_it_was_told_before_it_stops_in_order():
    actor, mailbox = Recorder(), Mailbox[str](10)
    async with trio.open_nursery() as nursery:
        ref: ActorRef[str] = await nursery.start(run_actor, actor, mailbox)
        ref.tell("a")
        ref.tell("b")
        assert ref.depth == 1  # the first was handed over to the actor, which was waiting
        mailbox.close()
        with pytest.raises(ActorStopped):
            ref.tell("c")
    assert actor.log == ["started", "a", "b", "stopped"]


async def test_an_ask_is_answered_with_what_handle_returns():
    async with trio.open_nursery() as nursery:
        ref = await nursery.start(run_actor, Recorder(), Mailbox[str](10))
        assert await ref.ask("a", 1.0) == "A"
        nursery.cancel_scope.cancel()


async def test_an_ask_ends_at_its_deadline_and_its_late_answer_is_discarded(autojump_clock):
    actor, mailbox = Recorder(), Mailbox[str](10)
    async with trio.open_nursery() as nursery:
        ref = await nursery.start(run_actor, actor, mailbox)
        before = trio.current_time()
        with pytest.raises(AskTimeout):
            await ref.ask("wait", 3.0)
        assert trio.current_time() - before == pytest.approx(3.0)
        actor.gate.set()
        assert await ref.ask("a", 1.0) == "A"
        mailbox.close()


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_an_ask_without_time_left_sends_nothing(seconds):
    mailbox = Mailbox[str](10)
    with pytest.raises(AskTimeout):
        await ActorRef(mailbox).ask("a", seconds)
    assert mailbox.depth == 0


async def test_an_ask_must_have_a_finite_deadline():
    with pytest.raises(ValueError, match="finite"):
        await ActorRef(Mailbox[str](1)).ask("a", float("inf"))


async def test_a_crash_reaches_the_asker_crashes_the_actor_and_fails_waiting_asks_at_once(autojump_clock):
    actor, mailbox = Recorder(), Mailbox[str](10)
    seen: dict[str, type[BaseException]] = {}

    async def ask(message: str) -> None:
        try:
            await ActorRef(mailbox).ask(message, 100.0)
        except Exception as error:
            seen[message] = type(error)

    async with trio.open_nursery() as nursery:
        for message in ("crash", "later"):
            nursery.start_soon(ask, message)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ValueError, match="crash"):
            await run_actor(actor, mailbox)
    assert seen == {"crash": ValueError, "later": ActorStopped}
    assert trio.current_time() < 100
    assert actor.log == ["started", "crash", "stopped"]


async def test_an_actor_that_is_cancelled_fails_the_ask_it_works_on_and_gets_no_stopped(autojump_clock):
    actor, mailbox = Recorder(), Mailbox[str](10)

    async def ask() -> None:
        with pytest.raises(ActorStopped):
            await ActorRef(mailbox).ask("wait", 100.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        async with trio.open_nursery() as inner:
            await inner.start(run_actor, actor, mailbox)
            await actor.in_handler.wait()
            inner.cancel_scope.cancel()
    assert actor.log == ["started", "wait"]


async def test_an_actor_whose_started_fails_gets_no_stopped():
    class Broken(Recorder):
        async def started(self) -> None:
            raise KeyError("no")

    actor, mailbox = Broken(), Mailbox[str](1)
    with pytest.raises(KeyError):
        await run_actor(actor, mailbox)
    assert actor.log == []
    assert mailbox.closed


async def test_a_stopped_that_hangs_is_cancelled(autojump_clock):
    class Hanging(Recorder):
        async def stopped(self) -> None:
            await trio.sleep_forever()

    mailbox = Mailbox[str](1)
    mailbox.close()
    with pytest.raises(StopTimeout):
        await run_actor(Hanging(), mailbox, stop_seconds=2.0)


async def test_a_crash_and_a_failing_stopped_are_both_raised():
    class Unlucky(Recorder):
        async def stopped(self) -> None:
            raise KeyError("stopped")

    mailbox = Mailbox[str](1)
    mailbox.put_nowait("crash")
    with pytest.raises(ExceptionGroup) as caught:
        await run_actor(Unlucky(), mailbox)
    assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]


async def test_a_handler_that_meets_another_closed_mailbox_crashes_instead_of_stopping_quietly():
    class Teller(Actor[Mailbox[int]]):
        async def handle(self, message: Mailbox[int]) -> object:
            return await message.get()

    other, mailbox = Mailbox[int](1), Mailbox[Mailbox[int]](1)
    other.close()
    mailbox.put_nowait(other)
    with pytest.raises(Exception, match="closed and empty"):
        await run_actor(Teller(), mailbox)


async def test_an_ask_waits_for_room_within_its_deadline(autojump_clock):
    mailbox = Mailbox[str](1, Overflow.WAIT)
    mailbox.put_nowait("full")
    with pytest.raises(AskTimeout):
        await ActorRef(mailbox).ask("a", 2.0)
    assert mailbox.drain() == ["full"]


async def test_an_asker_whose_question_is_dropped_learns_it_at_once(autojump_clock):
    mailbox = Mailbox[str](1, Overflow.DROP_OLDEST)
    ref = ActorRef(mailbox)

    async def ask() -> None:
        with pytest.raises(MailboxFull):
            await ref.ask("old", 100.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        ref.tell("new")
    assert trio.current_time() < 100
