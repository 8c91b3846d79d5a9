"""A message that wants an answer.

Owns the envelope that carries a question through a mailbox and the answer back, with a deadline. Knows nothing of the
actor that answers. As with OTP's `gen_server:call`, a question whose asker gave up is still handled.
"""

import math
from typing import Generic, TypeVar, cast

import trio

from lobu_actors.runtime.errors import ActorStopped, AskTimeout, MailboxClosed, MailboxFull
from lobu_actors.runtime.mailbox import Mailbox, Overflow

__all__ = ["Ask", "answer_drops", "ask_through", "refuse_all"]

M = TypeVar("M")


class Ask(Generic[M]):
    """A question in a mailbox. The first of `answer` and `fail` wins; later ones do nothing."""

    __slots__ = ("_answer", "_error", "_settled", "message")

    def __init__(self, message: M) -> None:
        self.message = message
        self._settled = trio.Event()
        self._answer: object = None
        self._error: Exception | None = None

    def answer(self, value: object) -> None:
        """Give the asker its answer."""
        if not self._settled.is_set():
            self._answer = value
            self._settled.set()

    def fail(self, error: Exception) -> None:
        """Raise `error` in the asker."""
        if not self._settled.is_set():
            self._error = error
            self._settled.set()

    @property
    def is_settled(self) -> bool:
        """Whether it has an answer or an error."""
        return self._settled.is_set()

    async def settled(self) -> None:
        """Wait for the answer or the error."""
        await self._settled.wait()

    def result(self) -> object:
        """The answer, or raises the error. Only when settled."""
        if self._error is not None:
            raise self._error
        return self._answer


async def ask_through(mailbox: Mailbox[M], message: M, timeout_seconds: float) -> object:
    """Put a question into a mailbox and wait for its answer, `timeout_seconds` in all.

    Raises AskTimeout, ActorStopped, MailboxFull (with WAIT it waits for room instead) or the handler's own exception.
    """
    if not timeout_seconds < math.inf:
        raise ValueError(f"an ask needs a finite timeout, not {timeout_seconds}")
    if timeout_seconds <= 0:
        raise AskTimeout("no time was left to ask")
    ask = Ask(message)
    inbox = cast("Mailbox[M | Ask[M]]", mailbox)  # the one reader of an actor's mailbox knows asks
    with trio.move_on_after(timeout_seconds):
        try:
            if mailbox.overflow is Overflow.WAIT:
                await inbox.put(ask)
            else:
                inbox.put_nowait(ask)
        except MailboxClosed as closed:
            raise ActorStopped("the actor has stopped") from closed
        await ask.settled()
    if not ask.is_settled:
        raise AskTimeout(f"no answer within {timeout_seconds:g} s")
    return ask.result()


def answer_drops(mailbox: Mailbox[M]) -> None:
    """Let the asker of a question that DROP_OLDEST discards know at once, unless the mailbox has a hook already."""
    if mailbox.on_drop is None:
        mailbox.on_drop = _dropped


def _dropped(message: object) -> None:
    if isinstance(message, Ask):
        message.fail(MailboxFull("newer messages pushed the question out of the mailbox"))


def refuse_all(mailbox: Mailbox[M], reason: str) -> None:
    """Close a mailbox and empty it; questions in it fail with ActorStopped, other messages are gone."""
    mailbox.close()
    for message in mailbox.drain():
        if isinstance(message, Ask):
            message.fail(ActorStopped(reason))
