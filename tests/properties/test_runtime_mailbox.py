"""The mailbox against a model: whatever is sent, waited for, cancelled and taken, order holds and nothing is lost."""

from collections import deque

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from lobu_actors.runtime.errors import MailboxClosed, MailboxFull
from lobu_actors.runtime.mailbox import Mailbox, Overflow

steps = st.lists(st.sampled_from(["put", "put", "get", "drain", "close"]), max_size=60)


@given(st.integers(1, 4), st.sampled_from([Overflow.REJECT, Overflow.DROP_OLDEST]), steps)
def test_it_behaves_as_a_list(capacity, overflow, steps):
    async def check() -> None:
        mailbox: Mailbox[int] = Mailbox(capacity, overflow)
        model: deque[int] = deque()
        closed, dropped = False, 0
        for n, step in enumerate(steps):
            if step == "put":
                try:
                    mailbox.put_nowait(n)
                except MailboxClosed:
                    assert closed
                except MailboxFull:
                    assert overflow is Overflow.REJECT
                    assert len(model) == capacity
                else:
                    assert not closed
                    if len(model) == capacity:
                        model.popleft()
                        dropped += 1
                    model.append(n)
            elif step == "get" and model:
                assert await mailbox.get() == model.popleft()
            elif step == "drain":
                assert mailbox.drain() == [*model]
                model.clear()
            elif step == "close":
                mailbox.close()
                closed = True
            assert (mailbox.depth, mailbox.dropped) == (len(model), dropped)

    trio.run(check)


tenths = st.integers(0, 20).map(lambda n: n / 10)
senders = st.lists(
    st.tuples(tenths, st.lists(tenths, min_size=1, max_size=5), st.none() | tenths), min_size=1, max_size=5
)
readers = st.lists(st.tuples(tenths, st.none() | tenths), min_size=1, max_size=4)


@settings(max_examples=150)
@given(st.integers(1, 3), senders, readers, st.none() | tenths)
def test_with_waiting_and_cancelled_tasks_each_accepted_message_is_taken_once_and_in_order(
    capacity, senders, readers, close_after
):
    async def check() -> None:
        mailbox: Mailbox[tuple[int, int]] = Mailbox(capacity, Overflow.WAIT)
        accepted: list[tuple[int, int]] = []
        taken: list[tuple[int, int]] = []

        async def send(sender: int, start: float, pauses: list[float], give_up: float | None) -> None:
            await trio.sleep(start)
            with trio.move_on_after(float("inf") if give_up is None else give_up):
                for n, pause in enumerate(pauses):
                    try:
                        await mailbox.put((sender, n))
                    except MailboxClosed:
                        return
                    accepted.append((sender, n))
                    await trio.sleep(pause)

        async def read(pause: float, give_up: float | None) -> None:
            with trio.move_on_after(float("inf") if give_up is None else give_up):
                try:
                    while True:
                        taken.append(await mailbox.get())
                        await trio.sleep(pause)
                except MailboxClosed:
                    return

        async with trio.open_nursery() as nursery:
            for number, sender in enumerate(senders):
                nursery.start_soon(send, number, *sender)
            for reader in readers:
                nursery.start_soon(read, *reader)
            await trio.sleep(30 if close_after is None else close_after)
            mailbox.close()
        taken.extend(mailbox.drain())
        assert sorted(taken) == sorted(accepted)
        if len(readers) == 1:
            for number in range(len(senders)):
                of_one = [n for sender, n in taken if sender == number]
                assert of_one == sorted(of_one)

    trio.run(check, clock=trio.testing.MockClock(autojump_threshold=0))
