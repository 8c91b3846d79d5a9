"""One-use tickets on Postgres: the primary key is what makes the first use the only one."""

from __future__ import annotations

from lobu_actors.store.postgres.rows import Part

# More than one use adds, so that what has expired never grows.
DELETED_AT_ONCE = 10


class TicketPart(Part):
    """Implements `ticket_protocol.TicketStore`."""

    async def use_ticket(self, organization_id: str, ticket_id: str, use_id: str, *, kept_seconds: float) -> bool:
        params = {
            "organization_id": organization_id,
            "ticket_id": ticket_id,
            "use_id": use_id,
            "kept_seconds": float(kept_seconds),
            "limit": DELETED_AT_ONCE,
        }
        return bool(await self.write("use_ticket_if_unused", params))
