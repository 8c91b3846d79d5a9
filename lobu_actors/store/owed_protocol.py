"""How much is owed altogether, for metrics: asked every few seconds, of all tenants."""

from __future__ import annotations

from typing import Protocol

import attrs


@attrs.frozen
class OwedNow:
    queued: int
    running: int
    oldest_seconds: float  # since the oldest of them was accepted; 0 when nothing is owed


class OwedStore(Protocol):
    async def count_owed(self) -> OwedNow: ...
