"""What is owed, for those who watch: how much altogether, every few seconds, and a tenant's oldest turns one by one."""

from __future__ import annotations

from typing import Protocol

import msgspec


class OwedNow(msgspec.Struct, frozen=True):
    queued: int
    running: int
    oldest_seconds: float  # since the oldest of them was accepted; 0 when nothing is owed


class OwedTurn(msgspec.Struct, frozen=True):
    conversation_id: str
    turn_id: str
    message_id: str | None  # None: the turn's row is lost
    attempt: int
    host_id: str | None  # that runs it; None: it is queued
    age_seconds: float  # since it was accepted


class OwedStore(Protocol):
    async def count_owed(self, organization_id: str | None = None) -> OwedNow:
        """Of all organizations without one."""
        ...

    async def list_owed(self, organization_id: str, *, limit: int) -> list[OwedTurn]:
        """The oldest first."""
        ...
