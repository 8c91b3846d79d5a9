"""What rollouts ask of the store: that hosts which share it are restarted one after the other, whoever asks for it."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Rollout(msgspec.Struct, frozen=True):
    """The last one. `under_way`: somebody sees to it. `is_back`: its host is there, or it ended well."""

    name: str
    under_way: bool
    is_back: bool


class RolloutStore(Protocol):
    """Only the database's clock judges an expiry. There is one turn for all hosts; nobody waits here for it."""

    async def begin_rollout(
        self, rollout_id: str, host_id: str, *, name: str, ttl_seconds: float, without: str | None = None
    ) -> bool:
        """Take the turn for a host. False: another host is being restarted, was and is not back, or drains.

        `without` is the name of a host that need not be back.
        """
        ...

    async def renew_rollout(self, rollout_id: str, *, ttl_seconds: float) -> bool:
        """False: the turn is another one's."""
        ...

    async def end_rollout(self, rollout_id: str) -> bool:
        """Give the turn up if the host is back: it lives, under another id than it had at the beginning."""
        ...

    async def give_rollout_up(self, rollout_id: str) -> None:
        """Give it up as it is. The next one begins when this host lives and is active."""
        ...

    async def follow_rollout(self, predecessor: str, host_id: str) -> None:
        """The host that was `predecessor` is this one now."""
        ...

    async def find_rollout(self) -> Rollout | None: ...
