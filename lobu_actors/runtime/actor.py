"""Actors: a state of their own, a mailbox, and one message at a time.

Owns the actor's callbacks, the reference that others hold and the receive loop. Knows nothing of supervisors or of the
registry; both run actors through `run_actor` or `live`.

An actor lives as in OTP's gen_server: `started()`, then `handle()` for one message after another, then `stopped()`. An
exception from a callback crashes it; nothing catches it here except to tell an asker. `stopped()` is called after an
orderly end and after a crash of `handle()` (as OTP's terminate/2), not when `started()` failed and not when the actor's
task is cancelled, which is the brutal kill: what must happen even then belongs in a `finally` of `handle()`.
"""

import enum
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import trio

from lobu_actors.runtime.ask import Ask, answer_drops, ask_through, refuse_all
from lobu_actors.runtime.errors import ActorStopped, MailboxClosed, Nudged, StopTimeout
from lobu_actors.runtime.mailbox import Mailbox

__all__ = ["Actor", "ActorRef", "Ending", "live", "run_actor"]

M = TypeVar("M")

STOP_SECONDS = 30.0


class Actor(Generic[M]):
    """Base of actors. Its callbacks never run at the same time, so its state needs no lock."""

    async def started(self) -> None:
        """Called once before the first message."""

    async def handle(self, message: M) -> object:
        """Handle one message. What it returns answers an `ask`; what it raises crashes the actor."""
        raise NotImplementedError

    async def stopped(self) -> None:
        """Called once after the last message; cancelled, as a crash, if it takes too long."""

    def ended(self) -> None:
        """Called once when the incarnation is over in whatever way, cancelled too: lets go of what it holds. Must not
        block or raise."""

    def may_passivate(self) -> bool:
        """Whether the actor may be stopped although nobody asked, because it has been idle. Must not block."""
        return True


class ActorRef(Generic[M]):
    """What others hold of an actor: it can be told and asked, and it stays valid, if useless, after the actor ended."""

    def __init__(self, mailbox: Mailbox[M]) -> None:
        self.mailbox = mailbox
        answer_drops(mailbox)

    @property
    def depth(self) -> int:
        """How many messages wait in the mailbox."""
        return self.mailbox.depth

    def tell(self, message: M) -> None:
        """Send without waiting. Raises MailboxFull or ActorStopped; otherwise the actor has it in its mailbox."""
        try:
            self.mailbox.put_nowait(message)
        except MailboxClosed as closed:
            raise ActorStopped("the actor has stopped") from closed

    async def ask(self, message: M, timeout_seconds: float) -> object:
        """Send and wait for what `handle` returns, `timeout_seconds` in all.

        Raises AskTimeout after the deadline, ActorStopped as soon as the actor ends without having handled it,
        MailboxFull, or the exception that handling it raised, which crashes the actor too. An actor that asks itself
        waits until the deadline.
        """
        return await ask_through(self.mailbox, message, timeout_seconds)


class Ending(enum.Enum):
    """Why an actor ended in order."""

    CLOSED = "closed"
    IDLE = "idle"


async def run_actor(
    actor: Actor[M],
    mailbox: Mailbox[M],
    *,
    stop_seconds: float = STOP_SECONDS,
    task_status: trio.TaskStatus[ActorRef[M]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run an actor until its mailbox is closed and empty; raises what crashed it.

    `nursery.start(run_actor, actor, mailbox)` returns its ActorRef once `started()` is through. Close the mailbox to
    stop it after the messages that it has accepted; cancel it to stop it now. However it ends, the mailbox is closed
    and questions still in it fail with ActorStopped. `stop_seconds` bounds `stopped()`.
    """
    ref = ActorRef(mailbox)
    try:
        await live(actor, mailbox, stop_seconds=stop_seconds, on_started=lambda: task_status.started(ref))
    finally:
        refuse_all(mailbox, "the actor stopped before it handled the message")


async def live(
    actor: Actor[M],
    mailbox: Mailbox[M],
    *,
    stop_seconds: float = STOP_SECONDS,
    on_started: Callable[[], None] | None = None,
    on_stopping: Callable[[], None] | None = None,
) -> Ending:
    """One incarnation of an actor on a mailbox that may outlive it: messages that it did not take stay there.

    Ends when the mailbox is closed and empty, or when it is nudged while the actor waits for it and may passivate.
    """
    await actor.started()
    if on_started is not None:
        on_started()
    try:
        try:
            ending = await _receive(actor, mailbox)
        except Exception as crash:
            if on_stopping is not None:
                on_stopping()
            try:
                await _stop(actor, stop_seconds)
            except Exception as failure:
                raise ExceptionGroup("the actor crashed, and so did its stopped()", [crash, failure]) from None
            raise
        if on_stopping is not None:
            on_stopping()
        await _stop(actor, stop_seconds)
        return ending
    finally:
        actor.ended()


async def _receive(actor: Actor[M], mailbox: Mailbox[M]) -> Ending:
    inbox = cast("Mailbox[M | Ask[M]]", mailbox)
    while True:
        try:
            letter = await inbox.get()
        except MailboxClosed:
            return Ending.CLOSED
        except Nudged:
            if not inbox.depth and actor.may_passivate():
                return Ending.IDLE
        else:
            await _handle(actor, letter)
            del letter  # an idle actor should not keep the last message in memory


async def _handle(actor: Actor[M], letter: M | Ask[M]) -> None:
    if not isinstance(letter, Ask):
        await actor.handle(letter)
        return
    try:
        letter.answer(await actor.handle(letter.message))
    except Exception as crash:
        letter.fail(crash)
        raise
    except BaseException:
        letter.fail(ActorStopped("the actor was stopped while it handled the message"))
        raise


async def _stop(actor: Actor[M], seconds: float) -> None:
    with trio.move_on_after(seconds) as scope:
        await actor.stopped()
    if scope.cancelled_caught:
        raise StopTimeout(seconds)
