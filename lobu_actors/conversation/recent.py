"""How a host's turns went in the last minutes: how long they took, which failed. In memory, bounded, of this process.

Noting costs a turn a logarithm and an increment. Nothing is added up before somebody looks.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.status import FailedTurn, Latencies
from lobu_actors.store.records import Turn

SLOT_SECONDS = 10
SLOTS = 36
FAILURES = 1000
BUCKETS_A_DOUBLING = 4
_Counts = tuple[tuple[int, int], ...]
_MOST_BUCKET = 45 * BUCKETS_A_DOUBLING - 1  # a year


def bucket_of(seconds: float) -> int:
    """See `Latencies`."""
    if seconds <= 1e-6:
        return 0
    return min(_MOST_BUCKET, int(BUCKETS_A_DOUBLING * math.log2(seconds * 1e6)))


class Recently:
    """Durations by the slot in which they ended."""

    def __init__(self) -> None:
        self._past: deque[tuple[int, _Counts]] = deque(maxlen=SLOTS - 1)  # slots that are over, as they are told
        self._slot = -1
        self._counts: Counter[int] = Counter()

    def note(self, seconds: float, now_ms: int) -> None:
        slot = now_ms // (SLOT_SECONDS * 1000)
        if slot > self._slot:
            if self._counts:
                self._past.append(self._newest())
            self._slot, self._counts = slot, Counter()
        self._counts[bucket_of(seconds)] += 1

    def latencies(self, now_ms: int) -> Latencies:
        """Of the slots of the last `SLOTS` times; a wall clock that went back adds to the newest."""
        since = (now_ms // (SLOT_SECONDS * 1000) - SLOTS + 1) * SLOT_SECONDS
        told = [*self._past, self._newest()] if self._counts else []
        return Latencies(SLOT_SECONDS, tuple(slot for slot in told if slot[0] >= since))

    def _newest(self) -> tuple[int, _Counts]:
        return self._slot * SLOT_SECONDS, tuple(sorted(self._counts.items()))


class Recent:
    """`gone` and `ended` are told by actors and their writes; times are the wall clock's."""

    def __init__(self) -> None:
        self.terminal = Recently()
        self.crash = Recently()
        self._gone: dict[ConversationRef, int] = {}
        self._failures: deque[tuple[str, FailedTurn]] = deque(maxlen=FAILURES)

    def gone(self, ref: ConversationRef, now_ms: int) -> None:
        """The worker of a run that is under way has ended."""
        self._gone[ref] = now_ms

    def forget(self, ref: ConversationRef) -> None:
        """Nothing runs there any more."""
        self._gone.pop(ref, None)

    def ended(self, ref: ConversationRef, turns: Sequence[Turn], code: str | None, now_ms: int) -> None:
        """Their terminal events are committed; `code` if they failed."""
        for turn in turns:
            self.terminal.note(now_ms / 1e3 - turn.accepted_at.timestamp(), now_ms)
            if code is not None:
                failed = FailedTurn(ref.conversation_id, turn.turn_id, turn.message_id, code, now_ms)
                self._failures.append((ref.organization_id, failed))
        gone_ms = self._gone.pop(ref, None)
        if gone_ms is not None and code is not None:
            self.crash.note((now_ms - gone_ms) / 1e3, now_ms)

    def failures(self, organization_id: str, most: int) -> tuple[FailedTurn, ...]:
        """The newest of that organization, newest first."""
        found = (failed for organization, failed in reversed(self._failures) if organization == organization_id)
        return tuple(islice(found, most))
