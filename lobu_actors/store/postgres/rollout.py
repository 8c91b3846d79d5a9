"""Rollouts on Postgres."""

from __future__ import annotations

from lobu_actors.store.postgres.rows import Part
from lobu_actors.store.rollout_protocol import Rollout


class RolloutPart(Part):
    """Implements `rollout_protocol.RolloutStore`."""

    async def begin_rollout(
        self, rollout_id: str, host_id: str, *, name: str, ttl_seconds: float, without: str | None = None
    ) -> bool:
        params = {
            "rollout_id": rollout_id,
            "host_id": host_id,
            "name": name,
            "ttl_seconds": float(ttl_seconds),
            "without": without,
        }
        return bool(await self.write("begin_rollout_if_nobody_is_down", params))

    async def renew_rollout(self, rollout_id: str, *, ttl_seconds: float) -> bool:
        params = {"rollout_id": rollout_id, "ttl_seconds": float(ttl_seconds)}
        return bool(await self.write("renew_rollout_if_ours", params))

    async def end_rollout(self, rollout_id: str) -> bool:
        return bool(await self.write("end_rollout_if_back", {"rollout_id": rollout_id}))

    async def give_rollout_up(self, rollout_id: str) -> None:
        await self.write("give_rollout_up", {"rollout_id": rollout_id})

    async def follow_rollout(self, predecessor: str, host_id: str) -> None:
        await self.write("follow_rollout", {"predecessor": predecessor, "host_id": host_id})

    async def find_rollout(self) -> Rollout | None:
        rows = await self.read("find_rollout")
        return Rollout(*rows[0]) if rows else None
