"""Renewals of a host's lease in time, by how long the database takes for one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import structlog
import trio
import trio.testing

from lobu_actors.contract.states import HostState
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.memory import MemoryStore
from supervisor.membership import Membership

TTL_SECONDS, RENEW_SECONDS, MARGIN_SECONDS = 6.0, 2.0, 1.0


class Slow(MemoryStore):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.renewals: list[float] = []

    async def renew_host(self, *args: Any, **options: Any) -> HostState | None:
        self.renewals.append(trio.current_time())
        await trio.sleep(self.seconds)
        return await super().renew_host(*args, **options)


async def test_a_database_that_takes_two_seconds_for_a_statement_costs_no_trust(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    store = Slow(seconds=2.0)
    membership = Membership(
        store, tmp_path, ttl_seconds=TTL_SECONDS, renew_seconds=RENEW_SECONDS, margin_seconds=MARGIN_SECONDS
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(membership.run, ChildContext("membership"))
        await membership.renewed()
        for _ in range(10):
            with trio.move_on_at(membership.trusted_until) as scope:
                await membership.renewed()
            assert not scope.cancelled_caught, "its workers are frozen"
        nursery.cancel_scope.cancel()
    sent = store.renewals
    assert {round(later - earlier, 3) for earlier, later in pairwise(sent)} == {RENEW_SECONDS}


async def test_a_renewal_without_an_answer_is_told_with_its_reason(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    membership = Membership(
        Slow(seconds=60.0),
        tmp_path,
        ttl_seconds=TTL_SECONDS,
        renew_seconds=RENEW_SECONDS,
        margin_seconds=MARGIN_SECONDS,
    )
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(membership.run, ChildContext("membership"))
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
    told = [entry for entry in logs if entry["event"] == "host lease not renewed"]
    assert {entry["error"] for entry in told} == {"no answer within 3 s"}
