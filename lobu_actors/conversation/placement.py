"""Whether a conversation that nobody owns begins here: asked by its actor, decided by whoever knows the other hosts."""

from __future__ import annotations

from typing import Protocol

from lobu_actors.contract.ids import ConversationRef


class Placement(Protocol):
    @property
    def draining(self) -> bool:
        """This host begins nothing any more; what its actors do not need at once they give up."""
        ...

    async def goes_elsewhere(self, ref: ConversationRef) -> bool:
        """True: not to be begun here. Another host has been told, or, where this one drains, will find it."""
        ...

    async def released(self, ref: ConversationRef) -> None:
        """This host has given up a conversation that owes something: let another one hear of it soon."""
        ...


class HereAlways:
    """Of a host that knows of no others. Implements `Placement`."""

    draining = False

    async def goes_elsewhere(self, ref: ConversationRef) -> bool:
        return False

    async def released(self, ref: ConversationRef) -> None:
        pass
