"""The mailbox: order, bound, overflow rules, closing, and that cancellation loses nothing."""

import pytest
import trio
import trio.testing

from lobu_actors.runtime.errors import MailboxClosed, MailboxFull, Nudged
from lobu_actors.runtime.mailbox import Mailbox, Overflow


async def test_messages_come_out_in_the_order_in_which_they_went_in():
    mailbox: Mailbox[int] = Mailbox(3)
    for n in range(3):
        mailbox.put_nowait(n)
    assert mailbox.depth == 3
    assert [await mailbox.get() for _ in range(3)] == [0, 1, 2]
    assert mailbox.depth == 0


def test_a_mailbox_without_room_for_one_message_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Mailbox(0)


@pytest.mark.parametrize("overflow", [Overflow.REJECT, Overflow.WAIT])
async def test_put_nowait_on_a_full_mailbox_is_rejected(overflow):
    mailbox = Mailbox(1, overflow)
    mailbox.put_nowait("a")
    with pytest.raises(MailboxFull):
        mailbox.put_nowait("b")
    assert mailbox.drain() == ["a"]
    assert mailbox.dropped == 0


async def test_put_does_not_wait_unless_the_rule_is_wait():
    mailbox = Mailbox(1, Overflow.REJECT)
    await mailbox.put("a")
    with pytest.raises(MailboxFull):
        await mailbox.put("b")


async def test_a_sender_that_always_finds_room_lets_others_run_and_hears_of_its_end():
    mailbox: Mailbox[int] = Mailbox(1, Overflow.DROP_OLDEST)
    sent = 0
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            while len(nursery.child_tasks):
                assert sent < 100, "it has the event loop to itself"
                await mailbox.put(sent)
                sent += 1
        scope.cancel()
        await mailbox.put(-1)
    assert scope.cancelled_caught
    assert mailbox.drain() == [sent - 1]


async def test_drop_oldest_drops_counts_and_reports_the_oldest_message():
    dropped: list[str] = []
    mailbox = Mailbox(2, Overflow.DROP_OLDEST, dropped.append)
    for message in "abc":
        mailbox.put_nowait(message)
    await mailbox.put("d")
    assert dropped == ["a", "b"]
    assert mailbox.dropped == 2
    assert mailbox.drain() == ["c", "d"]


async def test_a_nudge_ends_a_wait_and_takes_no_message():
    mailbox: Mailbox[int] = Mailbox(1)
    mailbox.nudge()  # nobody waits, so nobody hears of it
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            with pytest.raises(Nudged):
                await mailbox.get()
            assert await mailbox.get() == 1

        await trio.testing.wait_all_tasks_blocked()
        assert mailbox.awaited
        mailbox.nudge()
        assert not mailbox.awaited
        mailbox.put_nowait(1)


async def test_waiting_senders_are_served_in_order_and_nobody_overtakes_them():
    mailbox = Mailbox(1, Overflow.WAIT)
    mailbox.put_nowait(0)
    async with trio.open_nursery() as nursery:
        for n in (1, 2, 3):
            nursery.start_soon(mailbox.put, n)
            await trio.testing.wait_all_tasks_blocked()
        taken = [await mailbox.get()]
        with pytest.raises(MailboxFull):
            mailbox.put_nowait(99)
        taken += [await mailbox.get() for _ in range(3)]
    assert taken == [0, 1, 2, 3]


async def test_a_cancelled_sender_has_sent_nothing(autojump_clock):
    mailbox = Mailbox(1, Overflow.WAIT)
    mailbox.put_nowait(0)
    with trio.move_on_after(1) as scope:
        await mailbox.put(1)
    assert scope.cancelled_caught
    assert await mailbox.get() == 0
    mailbox.put_nowait(2)
    assert mailbox.drain() == [2]


async def test_a_cancelled_reader_has_taken_nothing(autojump_clock):
    mailbox: Mailbox[int] = Mailbox(2)
    with trio.move_on_after(1) as scope:
        await mailbox.get()
    assert scope.cancelled_caught
    mailbox.put_nowait(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.get()
    assert scope.cancelled_caught
    assert mailbox.drain() == [1]


async def test_a_message_handed_to_a_reader_survives_a_cancellation_right_after():
    mailbox: Mailbox[int] = Mailbox(1)
    got: list[int] = []
    scope = trio.CancelScope()

    async def read() -> None:
        with scope:
            got.append(await mailbox.get())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.put_nowait(7)
        scope.cancel()
    assert got + mailbox.drain() == [7]


async def test_readers_are_served_in_order():
    mailbox: Mailbox[str] = Mailbox(2)
    got: list[tuple[int, str]] = []

    async def read(reader: int) -> None:
        got.append((reader, await mailbox.get()))

    async with trio.open_nursery() as nursery:
        for reader in (1, 2):
            nursery.start_soon(read, reader)
            await trio.testing.wait_all_tasks_blocked()
        mailbox.put_nowait("a")
        mailbox.put_nowait("b")
    assert sorted(got) == [(1, "a"), (2, "b")]


async def test_close_refuses_senders_drains_and_then_ends_the_reader():
    mailbox = Mailbox(1, Overflow.WAIT)
    mailbox.put_nowait(1)

    async def wait_for_room() -> None:
        with pytest.raises(MailboxClosed):
            await mailbox.put(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_room)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.close()
        mailbox.close()
    with pytest.raises(MailboxClosed):
        mailbox.put_nowait(3)
    assert await mailbox.get() == 1
    with pytest.raises(MailboxClosed):
        await mailbox.get()


async def test_close_wakes_a_waiting_reader():
    mailbox: Mailbox[int] = Mailbox(1)

    async def read() -> None:
        with pytest.raises(MailboxClosed):
            await mailbox.get()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.close()


async def test_a_reader_that_always_finds_messages_lets_others_run():
    mailbox: Mailbox[int] = Mailbox(1000)
    for n in range(1000):
        mailbox.put_nowait(n)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(1000):
            await mailbox.get()
        nursery.cancel_scope.cancel()
    assert turns >= 20
