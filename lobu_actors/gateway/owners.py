"""Which conversations this process owns, and what it heard of who owns others.

The first is a fact about its own actors. The second is a hint with no date: whoever uses it is corrected by the owner's
answer, and the lease in the store has the last word.
"""

from __future__ import annotations

from collections.abc import Callable

from lobu_actors.contract.ids import ConversationRef

KNOWN_ELSEWHERE = 50_000

Changed = Callable[[ConversationRef], None]


class Owners:
    """`on_change` is called, without waiting, whenever a conversation became or ceased to be this process's own."""

    def __init__(self) -> None:
        self.on_change: list[Changed] = []
        self._here: dict[ConversationRef, int] = {}
        self._elsewhere: dict[ConversationRef, str] = {}

    def took(self, ref: ConversationRef, epoch: int) -> None:
        """An actor here holds the lease."""
        self._elsewhere.pop(ref, None)
        if self._here.get(ref) != epoch:
            self._here[ref] = epoch
            self._tell(ref)

    def gave_up(self, ref: ConversationRef) -> None:
        """No actor here holds the lease (any more)."""
        if self._here.pop(ref, None) is not None:
            self._tell(ref)

    def epoch_here(self, ref: ConversationRef) -> int | None:
        """None: it is not this process's own."""
        return self._here.get(ref)

    def heard(self, ref: ConversationRef, host_id: str) -> None:
        """Somebody says that this host owns it."""
        self._elsewhere.pop(ref, None)
        self._elsewhere[ref] = host_id
        while len(self._elsewhere) > KNOWN_ELSEWHERE:
            del self._elsewhere[next(iter(self._elsewhere))]

    def heard_not(self, ref: ConversationRef, host_id: str) -> None:
        """That host says that it does not own it."""
        if self._elsewhere.get(ref) == host_id:
            del self._elsewhere[ref]

    def elsewhere(self, ref: ConversationRef) -> str | None:
        """The host that owns it, as far as is known; None when it is owned here, or not known."""
        return None if ref in self._here else self._elsewhere.get(ref)

    def _tell(self, ref: ConversationRef) -> None:
        for changed in self.on_change:
            changed(ref)
