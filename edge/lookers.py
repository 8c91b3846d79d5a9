"""Somebody looks at how the hosts are: found out once a second for all who do, and for nobody otherwise.

Of conversations each looker is told its own organization's only; of hosts, what they consist of and how they did
lately, only who may see them. Must not know HTTP.

What may be dear to count is counted so seldom that it takes a hundredth of the time: see `Paced`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import trio
from msgspec.structs import replace

from edge import sse
from edge.settings import EdgeSettings
from lobu_actors.contract.events import drain
from lobu_actors.contract.states import HostState
from lobu_actors.gateway.protocol import Gateway
from lobu_actors.gateway.status import HostStatus, Latencies, Node
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.owed_protocol import OwedStore
from lobu_actors.store.protocol import HostStore
from lobu_actors.store.records import Host

HOUSE = "house"
GONE_SECONDS = 600.0  # how long a host is shown that went without a goodbye
SHOWN_HOSTS = 100
COUNT_SECONDS = 2.0  # nothing is counted oftener; hosts write their rows no oftener
SHARE = 0.01  # of the time, that counting may take
MOST_SECONDS = 30.0  # however long counting takes, it is done again after so long
Json = dict[str, Any]
T = TypeVar("T")


class LookedAt(HostStore, OwedStore, Protocol):
    """What of the store is looked at."""


class Paced(Generic[T]):
    """An answer that may be dear: asked for again only when the asking was a hundredth of the time since."""

    def __init__(self, ask: Callable[[], Awaitable[T]], least_seconds: float = 0.0) -> None:
        self._ask = ask
        self._least_seconds = least_seconds
        self._answer: T | None = None
        self._asked_at = self._due = -math.inf

    async def newest(self) -> tuple[T, float]:
        """With its age in seconds. Raises what asking does; then the next call asks again."""
        begun = trio.current_time()
        if self._answer is None or begun >= self._due:
            self._answer = await self._ask()
            took = trio.current_time() - begun
            self._asked_at = begun
            self._due = begun + max(self._least_seconds, min(MOST_SECONDS, took / SHARE))
        return self._answer, trio.current_time() - self._asked_at


class House:
    """What all lookers of one kind are told. A frame is made by the first of them who wants the next one."""

    def __init__(
        self, store: LookedAt, gateway: Gateway, look_seconds: float, organization_id: str, *, sees_hosts: bool
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._look_seconds = look_seconds
        self._organization_id = organization_id
        self._sees_hosts = sees_hosts
        self._owed = Paced(partial(store.count_owed, organization_id), COUNT_SECONDS)
        self._counted = Paced(store.list_hosts, COUNT_SECONDS)
        self._rows = Paced(partial(store.list_newest_hosts, limit=SHOWN_HOSTS), COUNT_SECONDS)
        self._number, self._frame, self._due = 0, b"", -math.inf
        self._making = trio.Lock()

    async def after(self, number: int) -> tuple[int, bytes]:
        """The newest frame and its number, as soon as that is not `number`. It is never older than a look's time."""
        if number == self._number:
            await trio.sleep_until(self._due)
        async with self._making:
            if trio.current_time() >= self._due:
                self._frame = sse.frame(HOUSE, await self._look())
                self._number += 1
                self._due = trio.current_time() + self._look_seconds
        return self._number, self._frame

    async def _look(self) -> Json:
        """Whatever can be learnt: a database or a host that is away is itself something to be seen."""
        found: Json = {"organizationId": self._organization_id, "seesHosts": self._sees_hosts, "store": "ready"}
        try:
            owed, age = await self._owed.newest()
            found["totals"] = {
                "queued": owed.queued,
                "running": owed.running,
                "oldestOwedSeconds": round(owed.oldest_seconds + age, 3) if owed.queued + owed.running else None,
            }
            found["leases"], found["moreLeases"] = await self._leases() if self._sees_hosts else ([], 0)
        except StoreUnavailable:
            found["store"] = "away"
        hosts = await self._gateway.look(self._organization_id)
        found["hosts"] = hosts if self._sees_hosts else [_without_host(host) for host in hosts]
        return found

    async def _leases(self) -> tuple[list[Json], int]:
        """As the hosts wrote themselves at their last renewal, with what was counted a while ago; and how many more."""
        counted, counted_age = await self._counted.newest()
        rows, age = (counted, counted_age) if counted_age <= COUNT_SECONDS else await self._rows.newest()
        held = {host.host_id: host for host in counted if _holds(host)}
        found: list[Json] = []
        for row in rows:
            host, one = row, held.pop(row.host_id, None)
            if one is not None:
                host = replace(row, leases=one.leases, epochs=one.epochs, queued=one.queued, running=one.running)
            if _matters(host):
                found.append(_lease(host, age))
        found += [_lease(host, counted_age) for host in held.values()]
        return found[:SHOWN_HOSTS], len(found[SHOWN_HOSTS:])


class Lookers:
    """Of one process, each kind's house as long as somebody of that kind looks."""

    def __init__(self, store: LookedAt, gateway: Gateway, settings: EdgeSettings) -> None:
        self._store = store
        self._gateway = gateway
        self._settings = settings
        self._houses: dict[tuple[str, bool], tuple[House, int]] = {}
        self.number = 0

    @contextmanager
    def house(self, organization_id: str, *, sees_hosts: bool) -> Iterator[House]:
        key = (organization_id, sees_hosts)
        house, others = self._houses.get(key, (None, 0))
        if house is None:
            seconds = self._settings.look_seconds
            house = House(self._store, self._gateway, seconds, organization_id, sees_hosts=sees_hosts)
        self._houses[key] = house, others + 1
        self.number += 1
        try:
            yield house
        finally:
            self.number -= 1
            _, left = self._houses.pop(key)
            if left > 1:
                self._houses[key] = house, left - 1


class Looker:
    """One stream's. `next_chunk` is called when the connection has room for more."""

    def __init__(self, house: House, settings: EdgeSettings, over: Callable[[], bool]) -> None:
        self._house = house
        self._settings = settings
        self._over = over
        self._number = 0
        self._ended = False

    async def next_chunk(self) -> bytes | None:
        if self._ended:
            return None
        if not self._over():
            self._number, frame = await self._house.after(self._number)
            if not self._over():
                return frame
        self._ended = True
        return sse.frame("drain", drain(self._settings.drain_reconnect_ms))


def _holds(host: Host) -> bool:
    return bool(host.leases or host.running)


def _matters(host: Host) -> bool:
    return _holds(host) or (host.state is not HostState.DEAD and host.expires_in_seconds > -GONE_SECONDS)


def _lease(host: Host, age: float) -> Json:
    return {
        "hostId": host.host_id,
        "name": host.name,
        "state": host.state.value,
        "version": host.version,
        "expiresInSeconds": round(host.expires_in_seconds - age, 1),
        "leases": host.leases,
        "taken": host.epochs - host.leases,
        "queued": host.queued,
        "running": host.running,
        "upSeconds": round(host.age_seconds + age),
        "linksUp": host.links.up,
        "linksDown": host.links.down,
    }


def _without_host(host: HostStatus) -> HostStatus:
    """What of it is the organization's own."""
    nothing = Latencies(host.terminal.slot_seconds)
    return replace(
        host, host_id="", name="", active_actors=len(host.actors), running=len(host.turns),
        workers_in_all=len(host.workers), idle_workers=0, tree=Node("", "", ""), terminal=nothing, crash=nothing,
    )  # fmt: skip
