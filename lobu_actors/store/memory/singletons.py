"""Singletons in memory. Each write asks first whether the lease is held."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from lobu_actors.contract.events import TERMINAL_EVENTS
from lobu_actors.contract.states import DeliveryStatus
from lobu_actors.store.memory.tables import DeliveryRow, LeaseRow, Part, WatcherRow, as_stored, pass_checkpoint
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
        await pass_checkpoint()
        if not self.tables.host_lives(host_id):
            return None
        row = self.tables.singletons.setdefault(name, LeaseRow(None, 0))
        if row.host_id not in (None, host_id) and self.tables.host_lives(row.host_id):
            return None
        row.host_id, row.epoch = host_id, row.epoch + 1
        return SingletonLease(name, host_id, row.epoch)

    async def is_singleton_held(self, lease: SingletonLease) -> bool:
        await pass_checkpoint()
        return self._holds_singleton(lease)

    async def release_singleton(self, lease: SingletonLease) -> None:
        await pass_checkpoint()
        if self._holds_singleton(lease):
            self.tables.singletons[lease.name].host_id = None

    async def begin_watchers(self, lease: SingletonLease, schedules: Mapping[str, str]) -> list[WatcherState] | None:
        await pass_checkpoint()
        if not self._holds_singleton(lease):
            return None
        organization, now = lease.name.organization_id, self.tables.now()
        for key in [key for key in self.tables.watchers if key[0] == organization and key[1] not in schedules]:
            del self.tables.watchers[key]
        for watcher_id, schedule in schedules.items():
            row = self.tables.watchers.setdefault((organization, watcher_id), WatcherRow(schedule, now))
            if row.schedule != schedule:
                row.schedule, row.considered_until = schedule, max(row.considered_until, now)
        rows = ((watcher_id, self.tables.watchers[organization, watcher_id]) for watcher_id in sorted(schedules))
        return [WatcherState(watcher_id, row.considered_until, row.pending_for) for watcher_id, row in rows]

    async def claim_firing(self, lease: SingletonLease, watcher_id: str, scheduled_at: datetime) -> bool:
        await pass_checkpoint()
        row = self.tables.watchers.get((lease.name.organization_id, watcher_id))
        if row is None or not self._holds_singleton(lease):
            return False
        if row.pending_for is None and row.considered_until < scheduled_at:
            row.considered_until = row.pending_for = scheduled_at
        return row.pending_for == scheduled_at

    async def confirm_firing(self, lease: SingletonLease, watcher_id: str, scheduled_at: datetime) -> bool:
        await pass_checkpoint()
        row = self.tables.watchers.get((lease.name.organization_id, watcher_id))
        if row is not None and self._holds_singleton(lease) and row.pending_for == scheduled_at:
            row.pending_for = None
        return self._holds_singleton(lease)

    async def owe_delivery(self, lease: SingletonLease, delivery: NewDelivery) -> bool:
        await pass_checkpoint()
        if not self._holds_singleton(lease):
            return False
        key = (lease.name.organization_id, lease.name.key, delivery.delivery_id)
        known = self.tables.deliveries.get(key)
        if known is None:
            stored = replace(delivery, address=as_stored(delivery.address))
            self.tables.deliveries[key] = DeliveryRow(stored, self.tables.next_time())
        elif known.status is DeliveryStatus.OWED and known.parts_sent == 0 and delivery.notice is not None:
            known.delivery = replace(known.delivery, notice=delivery.notice)
        return True

    async def find_owed_deliveries(self, name: SingletonName, *, limit: int) -> list[OwedDelivery]:
        await pass_checkpoint()
        heads: dict[object, OwedDelivery] = {}
        for (organization, channel, _), row in self.tables.deliveries.items():
            if (organization, channel) == (name.organization_id, name.key) and row.status is DeliveryStatus.OWED:
                heads.setdefault(row.delivery.ref, self._as_owed(row))
        return list(heads.values())[:limit]

    def _as_owed(self, row: DeliveryRow) -> OwedDelivery:
        found = row.delivery
        turn = self.tables.turn_of_message.get((found.ref, found.message_id))
        conversation = self.tables.conversation(found.ref)
        seq: int | None = None
        if turn is not None and conversation is not None:
            ends = (event for event, _ in conversation.events if event.turn_id == turn.turn_id)
            seq = next((event.seq for event in ends if event.type in TERMINAL_EVENTS), None)
        return OwedDelivery(
            found.delivery_id, found.ref, found.message_id, found.address, found.notice, row.parts_sent,
            has_turn=turn is not None, terminal_seq=seq,
        )  # fmt: skip

    async def record_delivery(
        self, lease: SingletonLease, delivery_id: str, status: DeliveryStatus, *, parts_sent: int, error: str | None
    ) -> bool:
        await pass_checkpoint()
        row = self.tables.deliveries.get((lease.name.organization_id, lease.name.key, delivery_id))
        if row is not None and self._holds_singleton(lease) and row.status is DeliveryStatus.OWED:
            row.parts_sent = max(row.parts_sent, parts_sent)
            row.status, row.error = status, error
        return self._holds_singleton(lease)

    async def forget_deliveries(self, lease: SingletonLease, *, older_than_seconds: float, limit: int) -> int:
        await pass_checkpoint()
        if not self._holds_singleton(lease):
            return 0
        before = self.tables.now() - timedelta(seconds=older_than_seconds)
        channel = (lease.name.organization_id, lease.name.key)
        old = [
            key
            for key, row in self.tables.deliveries.items()
            if key[:2] == channel and row.created_at < before and self._is_over(row)
        ]
        for key in old[:limit]:
            del self.tables.deliveries[key]
        return len(old[:limit])

    def _is_over(self, row: DeliveryRow) -> bool:
        if row.status is DeliveryStatus.OWED:
            return row.delivery.notice is None and not self._as_owed(row).has_turn
        return True

    def _holds_singleton(self, lease: SingletonLease) -> bool:
        row = self.tables.singletons.get(lease.name)
        return row is not None and row.host_id == lease.host_id and row.epoch == lease.epoch
