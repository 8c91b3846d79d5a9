"""One host at a time: a host's restart waits for its turn, which all hosts of a database share, and is over when the
host is back.

Who holds the turn keeps it by a lease; who dies with it leaves the name of a host that may be down. The next one then
waits until that host is there again, for however long the caller says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from lobu_actors.contract.ids import new_id
from lobu_actors.store.rollout_protocol import Rollout, RolloutStore

TURN_SECONDS = 15.0
RENEW_SECONDS = 4.0
LOOK_SECONDS = 0.25
GIVE_UP_SECONDS = 5.0


class RolloutFailed(Exception):
    """A rollout stopped; what it says is the next step."""


@asynccontextmanager
async def our_turn(
    store: RolloutStore,
    host_id: str,
    name: str,
    tell: Callable[[str], None],
    *,
    wait_seconds: float,
    back_seconds: float,
    without: str | None = None,
) -> AsyncIterator[None]:
    """While the context is open, no other host is restarted. At its end the host must be back within `back_seconds`.

    `without`: the name of a host that is gone for good. Raises RolloutFailed, StoreError, in a group if it was inside.
    """
    rollout_id = new_id()
    await _begin(store, rollout_id, host_id, name, tell, wait_seconds, without)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, store, rollout_id)
            yield
            with trio.move_on_after(back_seconds) as scope:
                while not await store.end_rollout(rollout_id):  # noqa: ASYNC110, the database tells of nothing
                    await trio.sleep(LOOK_SECONDS)
            if scope.cancelled_caught:
                raise RolloutFailed(f"{name} is not back after {back_seconds:g} s; see `lobu status` and its journal.")
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(GIVE_UP_SECONDS, shield=True):
            await store.give_rollout_up(rollout_id)


async def _begin(
    store: RolloutStore,
    rollout_id: str,
    host_id: str,
    name: str,
    tell: Callable[[str], None],
    wait_seconds: float,
    without: str | None,
) -> None:
    told = why = ""
    with trio.move_on_after(wait_seconds):
        while not await store.begin_rollout(rollout_id, host_id, name=name, ttl_seconds=TURN_SECONDS, without=without):
            why = _why(await store.find_rollout())
            if why != told:
                tell(f"waiting: {why}")
                told = why
            await trio.sleep(LOOK_SECONDS)
        return
    raise RolloutFailed(
        f"{name} was not touched, since after {wait_seconds:g} s {why or 'the database did not answer'}; bring that "
        "host back, or say --without NAME if it is gone for good."
    )


def _why(last: Rollout | None) -> str:
    if last is not None and last.under_way:
        return f"{last.name} is being restarted"
    if last is not None and not last.is_back:
        return f"{last.name} was being restarted and is not back"
    return "another host drains"


async def _keep(store: RolloutStore, rollout_id: str) -> None:
    while True:
        await trio.sleep(RENEW_SECONDS)
        if not await store.renew_rollout(rollout_id, ttl_seconds=TURN_SECONDS):
            raise RolloutFailed("the database gave this rollout's turn to another one; start it again.")
