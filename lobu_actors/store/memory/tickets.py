"""One-use tickets in memory."""

from __future__ import annotations

from lobu_actors.store.memory.tables import Part, pass_checkpoint


class TicketPart(Part):
    """Implements `ticket_protocol.TicketStore`."""

    async def use_ticket(self, organization_id: str, ticket_id: str, use_id: str, *, kept_seconds: float) -> bool:
        await pass_checkpoint()
        now, used = self.tables.clock(), self.tables.used_tickets
        for key in [key for key, (_, expires_at) in used.items() if expires_at < now]:
            del used[key]
        first, _ = used.get((organization_id, ticket_id), (use_id, now))
        if first != use_id:
            return False
        used[organization_id, ticket_id] = (use_id, now + kept_seconds)
        return True
