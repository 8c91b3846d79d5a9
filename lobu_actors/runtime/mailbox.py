"""A bounded mailbox: one queue, one overflow rule, many senders.

Owns the order of messages, the bound and what happens at the bound. Knows nothing of actors or of what a message means.

The model: accepted messages are FIFO. A message is accepted when `put_nowait` or `put` returns, and then only
DROP_OLDEST or the owner's `drain` discards it. A waiting reader gets a message handed over directly, and a waiting
sender's message moves in as soon as there is room, so neither newcomers nor cancellation can overtake or lose one: trio
delivers a cancellation only to a task that has not been rescheduled yet, and then nothing has been handed over.

Rejected: `trio.open_memory_channel` (it cannot drop the oldest, and its `receive` is a schedule point each time, which
is most of the cost of a short handler).
"""

import enum
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, enable_ki_protection

from lobu_actors.runtime.errors import MailboxClosed, MailboxFull, Nudged

__all__ = ["Mailbox", "Overflow"]

M = TypeVar("M")

# A reader that always finds something, or a sender that always finds room, would otherwise keep the loop to itself.
_TIMES_PER_SCHEDULE_POINT = 32


class Overflow(enum.Enum):
    """What happens to a message that finds the mailbox full."""

    REJECT = "reject"
    DROP_OLDEST = "drop_oldest"
    WAIT = "wait"


@attrs.define(eq=False)
class _Waiting(Generic[M]):
    """A parked task and what passes between it and the one that wakes it: no letters means that the mailbox closed."""

    letters: list[M] = attrs.Factory(list)


class Mailbox(Generic[M]):
    """A bounded FIFO of messages with an explicit overflow rule.

    `capacity` counts messages, at least 1. `on_drop` is called, synchronously, with each message that DROP_OLDEST
    discards, and must not raise. Everything here must be called from trio's thread.
    """

    def __init__(
        self,
        capacity: int,
        overflow: Overflow = Overflow.REJECT,
        on_drop: Callable[[M], None] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox needs a capacity of at least 1, not {capacity}")
        self.on_drop = on_drop
        self._capacity = capacity
        self._overflow = overflow
        self._dropped = 0
        self._closed = False
        # Plain ones, which have no room for more than they hold: most mailboxes are empty, and there are many.
        self._messages: list[M] = []
        self._readers: dict[Task, _Waiting[M]] = {}
        self._senders: dict[Task, _Waiting[M]] = {}  # not empty only while the mailbox is full
        self._gets_since_schedule_point = 0
        self._puts_since_schedule_point = 0
        self.waits = 0
        """How often a reader has begun to wait."""

    @property
    def depth(self) -> int:
        """Messages that are accepted and not taken yet."""
        return len(self._messages)

    @property
    def overflow(self) -> Overflow:
        """The rule for a message that finds it full."""
        return self._overflow

    @property
    def dropped(self) -> int:
        """How many messages DROP_OLDEST has discarded."""
        return self._dropped

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    @enable_ki_protection
    def put_nowait(self, message: M) -> None:
        """Accept a message now. Raises MailboxFull (REJECT and WAIT) or MailboxClosed; then it was not accepted."""
        if self._closed:
            raise MailboxClosed("the mailbox is closed")
        if self._readers:
            self._hand_over(message)
            return
        if len(self._messages) >= self._capacity:
            if self._overflow is not Overflow.DROP_OLDEST:
                raise MailboxFull(f"the mailbox already holds {self._capacity} messages")
            self._dropped += 1
            oldest = self._messages.pop(0)
            self._messages.append(message)
            if self.on_drop is not None:
                self.on_drop(oldest)
            return
        self._messages.append(message)

    @enable_ki_protection
    async def put(self, message: M) -> None:
        """Accept a message, waiting for room if the rule is WAIT: bound that wait with a cancel scope.

        With the other rules it is `put_nowait`. Raises what `put_nowait` raises. If it is cancelled, the message was
        not accepted. Waiting senders are served in the order in which they came. When there is room it returns
        without a schedule point, except once in 32 times, but always notices a cancellation.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.put_nowait(message)
        except MailboxFull:
            if self._overflow is not Overflow.WAIT:
                raise
        else:
            self._puts_since_schedule_point += 1
            if self._puts_since_schedule_point >= _TIMES_PER_SCHEDULE_POINT:
                self._puts_since_schedule_point = 0
                await trio.lowlevel.cancel_shielded_checkpoint()  # not cancellable: the message is in already
            return
        sender = _Waiting([message])
        await trio.lowlevel.wait_task_rescheduled(_line_up(self._senders, sender))
        if sender.letters:
            raise MailboxClosed("the mailbox was closed before it had room")

    @enable_ki_protection
    async def get(self) -> M:
        """Take the first message, waiting for one if there is none.

        Raises MailboxClosed when the mailbox is closed and empty, and Nudged. If it is cancelled, no message was taken.
        When there is a message it returns without a schedule point, except once in 32 times, but always notices a
        cancellation.
        """
        self._gets_since_schedule_point += 1
        if self._gets_since_schedule_point >= _TIMES_PER_SCHEDULE_POINT:
            self._gets_since_schedule_point = 0
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        if self.depth:
            return self._take()
        if not self._closed:
            self._gets_since_schedule_point = 0
            self.waits += 1
            reader: _Waiting[M] = _Waiting()
            await trio.lowlevel.wait_task_rescheduled(_line_up(self._readers, reader))
            if reader.letters:
                return reader.letters.pop()
            if not self._closed:
                raise Nudged("nobody has written")
        raise MailboxClosed("the mailbox is closed and empty")

    @property
    def awaited(self) -> bool:
        """Whether a reader waits."""
        return bool(self._readers)

    @enable_ki_protection
    def nudge(self) -> None:
        """Have each waiting reader get Nudged, as though it had waited long enough."""
        _wake_all(self._readers)

    @enable_ki_protection
    def close(self) -> None:
        """Accept nothing more; senders, the waiting ones too, get MailboxClosed. What is inside can still be taken."""
        self._closed = True
        _wake_all(self._readers)
        _wake_all(self._senders)

    def drain(self) -> list[M]:
        """Take everything out at once, first message first. For an owner that will not handle it."""
        messages = []
        while self.depth:
            messages.append(self._take())
        return messages

    def _take(self) -> M:
        message = self._messages.pop(0)
        if self._senders:
            task, sender = _first(self._senders)
            self._messages.append(sender.letters.pop())
            trio.lowlevel.reschedule(task)
        return message

    def _hand_over(self, message: M) -> None:
        task, reader = _first(self._readers)
        reader.letters.append(message)
        trio.lowlevel.reschedule(task)


def _line_up(line: dict[Task, _Waiting[M]], waiting: _Waiting[M]) -> Callable[[RaiseCancelT], Abort]:
    """Put the current task at the line's end; gives what takes it out again when it is cancelled."""
    task = trio.lowlevel.current_task()
    line[task] = waiting

    def abort(_: RaiseCancelT) -> Abort:
        del line[task]
        return Abort.SUCCEEDED

    return abort


def _first(line: dict[Task, _Waiting[M]]) -> tuple[Task, _Waiting[M]]:
    """Take who has waited for longest out of the line."""
    task = next(iter(line))
    return task, line.pop(task)


def _wake_all(line: dict[Task, _Waiting[M]]) -> None:
    """Wake everybody in the order of the line. Not one `_first` after the other: each would pass by all before it."""
    for task in line:
        trio.lowlevel.reschedule(task)
    line.clear()
