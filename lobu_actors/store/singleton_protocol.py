"""What a singleton needs of the store: its lease, and what it must remember under it.

As in `protocol`: what takes a lease writes nothing unless the lease row still names that host and epoch in the same
statement, and each write may be asked again with the same arguments after an unknown outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from lobu_actors.contract.states import DeliveryStatus
from lobu_actors.store.singleton_records import (
    NewDelivery,
    OwedDelivery,
    SingletonLease,
    SingletonName,
    WatcherState,
)


class SingletonStore(Protocol):
    async def acquire_singleton(self, name: SingletonName, host_id: str) -> SingletonLease | None:
        """Take the lease (epoch + 1) unless another live host holds it. None: it does, or this host's row is over."""
        ...

    async def is_singleton_held(self, lease: SingletonLease) -> bool:
        """A look, for whoever wants to stop early. What must not happen after a loss is guarded in its own write."""
        ...

    async def release_singleton(self, lease: SingletonLease) -> None:
        """Give the lease up; its epoch stays. No error when it was lost already."""
        ...

    async def begin_watchers(self, lease: SingletonLease, schedules: Mapping[str, str]) -> list[WatcherState] | None:
        """Make the organization's watchers be these, by id. None: lost.

        A new one, and one whose schedule is another one now, counts from the present on. The rest is forgotten.
        """
        ...

    async def claim_firing(self, lease: SingletonLease, watcher_id: str, scheduled_at: datetime) -> bool:
        """Decide on a firing before making it. False: lost, or it is not this watcher's next one to be decided on."""
        ...

    async def confirm_firing(self, lease: SingletonLease, watcher_id: str, scheduled_at: datetime) -> bool:
        """Note that a claimed firing was accepted. False: lost."""
        ...

    async def owe_delivery(self, lease: SingletonLease, delivery: NewDelivery) -> bool:
        """Note a debt to a chat, in the channel that is the lease's key. False: lost.

        By delivery_id, once; a notice takes the place of a reply of which nothing was sent.
        """
        ...

    async def find_owed_deliveries(self, name: SingletonName, *, limit: int) -> list[OwedDelivery]:
        """The oldest debt of each conversation of a channel, oldest first."""
        ...

    async def record_delivery(
        self, lease: SingletonLease, delivery_id: str, status: DeliveryStatus, *, parts_sent: int, error: str | None
    ) -> bool:
        """How far it has come. What has ended stays as it ended. False: lost."""
        ...

    async def forget_deliveries(self, lease: SingletonLease, *, older_than_seconds: float, limit: int) -> int:
        """Delete old ones that have ended or whose message has no turn; gives how many."""
        ...
