"""What using up a ticket asks of the store."""

from __future__ import annotations

from typing import Protocol


class TicketStore(Protocol):
    """Tickets that open something once. Whoever checks a ticket's signature records its use here."""

    async def use_ticket(self, organization_id: str, ticket_id: str, use_id: str, *, kept_seconds: float) -> bool:
        """True for the first use, and for the same `use_id` again. That it was used is known for `kept_seconds`.

        After that the next use is a first one, also of a ticket whose record nobody has deleted yet.
        """
        ...
