"""Rollouts in memory."""

from __future__ import annotations

from lobu_actors.contract.states import HostState
from lobu_actors.store.memory.tables import Part, RolloutRow, pass_checkpoint
from lobu_actors.store.rollout_protocol import Rollout


class RolloutPart(Part):
    """Implements `rollout_protocol.RolloutStore`."""

    async def begin_rollout(
        self, rollout_id: str, host_id: str, *, name: str, ttl_seconds: float, without: str | None = None
    ) -> bool:
        await pass_checkpoint()
        now, last = self.tables.clock(), self.tables.rollout
        for host in self.tables.hosts.values():
            if host.state is HostState.DRAINING and host.expires_at > now and host.host_id != host_id:
                return False
        if last is not None and not last.ended:
            may_follow = last.host_id == host_id or last.name == without or self._is_active(last.host_id)
            if last.expires_at > now or not may_follow:
                return False
        self.tables.rollout = RolloutRow(rollout_id, host_id, host_id, name, now + ttl_seconds)
        return True

    async def renew_rollout(self, rollout_id: str, *, ttl_seconds: float) -> bool:
        await pass_checkpoint()
        ours = self._ours(rollout_id)
        if ours is not None:
            ours.expires_at = self.tables.clock() + ttl_seconds
        return ours is not None

    async def end_rollout(self, rollout_id: str) -> bool:
        await pass_checkpoint()
        ours = self._ours(rollout_id)
        if ours is None or ours.host_id == ours.first_host_id or not self._is_active(ours.host_id):
            return False
        ours.ended = True
        return True

    async def give_rollout_up(self, rollout_id: str) -> None:
        await pass_checkpoint()
        if (ours := self._ours(rollout_id)) is not None:
            ours.expires_at = self.tables.clock()

    async def follow_rollout(self, predecessor: str, host_id: str) -> None:
        await pass_checkpoint()
        last = self.tables.rollout
        if last is not None and last.host_id == predecessor:
            last.host_id = host_id

    async def find_rollout(self) -> Rollout | None:
        await pass_checkpoint()
        last = self.tables.rollout
        if last is None:
            return None
        under_way = not last.ended and last.expires_at > self.tables.clock()
        return Rollout(last.name, under_way, last.ended or self._is_active(last.host_id))

    def _ours(self, rollout_id: str) -> RolloutRow | None:
        last = self.tables.rollout
        return last if last is not None and last.rollout_id == rollout_id and not last.ended else None

    def _is_active(self, host_id: str) -> bool:
        return self.tables.host_lives(host_id) and self.tables.hosts[host_id].state is HostState.ACTIVE
