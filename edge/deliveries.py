"""When streams of this process were given terminal events: for timelines, in memory, of the newest ones only.

Behind its terminal statement nothing of a turn is written any more, so this is kept nowhere else.
"""

from __future__ import annotations

from collections import OrderedDict

from edge.tracing import Traces
from lobu_actors.contract.events import Data
from lobu_actors.contract.ids import ConversationRef

_Key = tuple[ConversationRef, str]


class Deliveries:
    def __init__(self, capacity: int, traces: Traces) -> None:
        self._capacity = capacity
        self._traces = traces
        self._known: OrderedDict[_Key, tuple[int, int]] = OrderedDict()

    def note(self, ref: ConversationRef, data: Data, at_ms: int) -> None:
        """One more stream was given this terminal event."""
        message_id = str(data.get("messageId"))
        first_ms, streams = self._known.get((ref, message_id), (at_ms, 0))
        self._known[ref, message_id] = (first_ms, streams + 1)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)
        if not streams:
            self._traces.delivered(ref, message_id, float(data.get("timestamp", at_ms)), at_ms)

    def of(self, ref: ConversationRef, message_id: str) -> tuple[int, int] | None:
        """When the first one was given it, in milliseconds since the epoch, and how many were. None: not known here."""
        return self._known.get((ref, message_id))
