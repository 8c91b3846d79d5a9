"""One actor as a child of a supervisor, for an actor that there is exactly one of.

Owns how an actor's life maps to a child's: `started()`, the ordered stop and the crash. Actors that come and go by key
belong in a registry.
"""

from collections.abc import Callable
from typing import TypeVar

import trio

from lobu_actors.runtime.actor import Actor, ActorRef, live
from lobu_actors.runtime.ask import refuse_all
from lobu_actors.runtime.child_spec import ChildContext, ChildSpec, Restart
from lobu_actors.runtime.mailbox import Mailbox, Overflow

__all__ = ["actor_child"]

M = TypeVar("M")


def actor_child(
    id: str,
    factory: Callable[[], Actor[M]],
    *,
    mailbox_capacity: int,
    overflow: Overflow = Overflow.REJECT,
    restart: Restart = Restart.PERMANENT,
    shutdown_seconds: float = 5.0,
    start_timeout_seconds: float = 30.0,
) -> ChildSpec:
    """A spec whose child is a new actor with a new, empty mailbox at each start, as in OTP.

    The supervisor's `value(id)` is its ActorRef; ask for it again after a restart, the old one raises ActorStopped. On
    an ordered stop waiting messages are dropped (questions fail with ActorStopped), the actor finishes the message that
    it is handling and gets its `stopped()`.
    """

    async def run(context: ChildContext) -> None:
        await _run(factory, Mailbox[M](mailbox_capacity, overflow), context)

    return ChildSpec(id, run, restart, shutdown_seconds, start_timeout_seconds)


async def _run(factory: Callable[[], Actor[M]], mailbox: Mailbox[M], context: ChildContext) -> None:
    ref = ActorRef(mailbox)
    crash: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_close_on_stop, mailbox, context.stopping)
        try:
            await live(factory(), mailbox, on_started=lambda: context.started(ref))
        except Exception as error:
            crash = error  # raised below, so that the nursery does not wrap it
        finally:
            refuse_all(mailbox, f"actor {context.id!r} stopped before it handled the message")
        nursery.cancel_scope.cancel()
    if crash is not None:
        raise crash


async def _close_on_stop(mailbox: Mailbox[M], stopping: trio.Event) -> None:
    await stopping.wait()
    refuse_all(mailbox, "the actor is stopping")
