"""Somebody looks at how the hosts are: asked for once a second for each who does, and for nobody otherwise.

Of conversations each looker is told its own organization's only; of hosts, what they consist of and how they did
lately, only who may see them. Must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import trio

from edge import sse
from edge.settings import EdgeSettings
from lobu_actors.contract.events import drain
from lobu_actors.contract.states import HostState
from lobu_actors.gateway.protocol import Gateway
from lobu_actors.gateway.status import HostStatus, Latencies, Node
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import HostStore

HOUSE = "house"
GONE_SECONDS = 600.0  # how long a host is shown that went without a goodbye
Json = dict[str, Any]


class Looker:
    """One stream's. `next_chunk` is called when the connection has room for more."""

    def __init__(
        self,
        store: HostStore,
        gateway: Gateway,
        settings: EdgeSettings,
        organization_id: str,
        *,
        sees_hosts: bool,
        over: Callable[[], bool],
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._settings = settings
        self._organization_id = organization_id
        self._sees_hosts = sees_hosts
        self._over = over
        self._next = trio.current_time()
        self._ended = False

    async def next_chunk(self) -> bytes | None:
        if self._ended:
            return None
        await trio.sleep_until(self._next)
        self._next = trio.current_time() + self._settings.look_seconds
        if self._over():
            self._ended = True
            return sse.frame("drain", drain(self._settings.drain_reconnect_ms))
        return sse.frame(HOUSE, await self.look())

    async def look(self) -> Json:
        """Whatever can be learnt: a database or a host that is away is itself something to be seen."""
        found: Json = {"organizationId": self._organization_id, "seesHosts": self._sees_hosts, "store": "ready"}
        try:
            totals = await self._store.totals(self._organization_id)
            found["totals"] = {
                "conversations": totals.conversations,
                "queued": totals.queued,
                "running": totals.running,
                "oldestOwedSeconds": totals.oldest_owed_seconds,
            }
            found["leases"] = await self._leases() if self._sees_hosts else []
        except StoreUnavailable:
            found["store"] = "away"
        hosts = await self._gateway.look(self._organization_id)
        found["hosts"] = [msgspec.to_builtins(self._shown(host)) for host in hosts]
        return found

    async def _leases(self) -> list[Json]:
        return [
            {
                "hostId": host.host_id,
                "name": host.name,
                "state": host.state.value,
                "version": host.version,
                "expiresInSeconds": round(host.expires_in_seconds, 1),
                "leases": host.leases,
                "taken": host.epochs - host.leases,
                "queued": host.queued,
                "running": host.running,
                "upSeconds": round(host.age_seconds),
                "linksUp": host.links.up,
                "linksDown": host.links.down,
            }
            for host in await self._store.list_hosts()
            if host.leases
            or host.running
            or (host.state is not HostState.DEAD and host.expires_in_seconds > -GONE_SECONDS)
        ]

    def _shown(self, host: HostStatus) -> HostStatus:
        if self._sees_hosts:
            return host
        nothing = Latencies(host.terminal.slot_seconds)
        return msgspec.structs.replace(
            host, host_id="", name="", active_actors=len(host.actors), running=len(host.turns),
            workers_in_all=len(host.workers), idle_workers=0, tree=Node("", "", ""), terminal=nothing, crash=nothing,
        )  # fmt: skip
