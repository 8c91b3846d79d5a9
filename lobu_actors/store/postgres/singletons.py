"""Singletons on Postgres. Every write is one statement guarded by the lease row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import DeliveryStatus
from lobu_actors.store.postgres.rows import Params, Part, to_json
from lobu_actors.store.singleton_records import (
    NewDelivery,
    OwedDelivery,
    SingletonLease,
    SingletonName,
    WatcherState,
)


class SingletonPart(Part):
    """Implements `singleton_protocol.SingletonStore`."""

    async def acquire_singleton(self, name: SingletonName, host_id: str) -> SingletonLease | None:
        rows = await self.write("acquire_singleton_unless_held_by_live_host", _name_params(name) | {"host_id": host_id})
        return SingletonLease(name, host_id, rows[0][0]) if rows else None

    async def is_singleton_held(self, lease: SingletonLease) -> bool:
        return bool(await self.read("is_singleton_held", _lease_params(lease)))

    async def release_singleton(self, lease: SingletonLease) -> None:
        await self.write("release_singleton_if_held", _lease_params(lease))

    async def begin_watchers(self, lease: SingletonLease, schedules: Mapping[str, str]) -> list[WatcherState] | None:
        params = _lease_params(lease) | {"watcher_ids": list(schedules), "schedules": list(schedules.values())}
        rows = await self.write("begin_watchers_if_lease_held", params)
        return [WatcherState(*row) for row in rows if row[0] is not None] if rows else None

    async def claim_firing(self, lease: SingletonLease, watcher_id: str, scheduled_at: datetime) -> bool:
        params = _lease_params(lease) | {"watcher_id": watcher_id, "scheduled_at": scheduled_at}
        return bool(await self.write("claim_firing_if_lease_held", params))

    async def confirm_firing(self, lease: SingletonLease, watcher_id: str, scheduled_at: datetime) -> bool:
        params = _lease_params(lease) | {"watcher_id": watcher_id, "scheduled_at": scheduled_at}
        return bool(await self.write("confirm_firing_if_lease_held", params))

    async def owe_delivery(self, lease: SingletonLease, delivery: NewDelivery) -> bool:
        params = _lease_params(lease) | {
            "delivery_id": delivery.delivery_id,
            "agent_id": delivery.ref.agent_id,
            "conversation_id": delivery.ref.conversation_id,
            "message_id": delivery.message_id,
            "address": to_json(delivery.address),
            "notice": delivery.notice,
        }
        return bool(await self.write("owe_delivery_if_lease_held", params))

    async def find_owed_deliveries(self, name: SingletonName, *, limit: int) -> list[OwedDelivery]:
        params = {"organization_id": name.organization_id, "key": name.key, "limit": limit}
        return [
            OwedDelivery(delivery_id, ConversationRef(name.organization_id, agent_id, conversation_id), *rest)
            for delivery_id, agent_id, conversation_id, *rest in await self.read("find_owed_deliveries", params)
        ]

    async def record_delivery(
        self, lease: SingletonLease, delivery_id: str, status: DeliveryStatus, *, parts_sent: int, error: str | None
    ) -> bool:
        params = _lease_params(lease) | {
            "delivery_id": delivery_id,
            "status": status.value,
            "parts_sent": parts_sent,
            "error": error,
        }
        return bool(await self.write("record_delivery_if_lease_held", params))

    async def forget_deliveries(self, lease: SingletonLease, *, older_than_seconds: float, limit: int) -> int:
        params = _lease_params(lease) | {"older_than_seconds": float(older_than_seconds), "limit": limit}
        return len(await self.write("forget_deliveries_if_lease_held", params))


def _name_params(name: SingletonName) -> Params:
    return {"organization_id": name.organization_id, "kind": name.kind, "key": name.key}


def _lease_params(lease: SingletonLease) -> Params:
    return _name_params(lease.name) | {"host_id": lease.host_id, "epoch": lease.epoch}
