"""One side's sending, over one connection after another."""

from __future__ import annotations

import trio
import trio.testing

from supervisor.remote.sending import Sending


async def test_what_is_sent_again_goes_over_the_new_connection_alone() -> None:
    """The one before is in the middle of a message, and has not heard yet that it is over."""
    sending, former, new = Sending(), list[str](), list[str]()
    is_sent = trio.Event()
    sending.put_now("a")
    sending.put_now("b")

    async def slowly(text: str) -> None:
        former.append(text)
        await is_sent.wait()

    async def at_once(text: str) -> None:
        await trio.lowlevel.checkpoint()
        new.append(text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sending.send_over, slowly)
        await trio.testing.wait_all_tasks_blocked()
        sending.resume(0)
        is_sent.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(sending.send_over, at_once)
        await trio.testing.wait_all_tasks_blocked()
        assert (former, new) == (["a"], ["a", "b"])
        nursery.cancel_scope.cancel()
