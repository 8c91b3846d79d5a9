"""A worker's stdout and stderr on their way to the supervisor's log: whole lines, within a budget.

Owns the reading end of one worker's log pipe. It is always read, so that no worker ever blocks because nobody looks at
its log; what is over the budget is counted and dropped. Knows nothing of the link.
"""

import os

READ_BYTES = 64 * 1024
LINE_BYTES = 8 * 1024
BYTES_PER_SECOND = 64 * 1024
LINE_COST_BYTES = 128  # that a line counts more than its bytes: the supervisor's log has work with each, however short
BURST_BYTES = 64 * 1024  # also what the last read after the worker's end may bring at most


class OutputPipe:
    """Lines of one pipe. `read` never blocks and does one system call."""

    def __init__(self, descriptor: int, now: float) -> None:
        self.descriptor = descriptor
        self.ended = False
        self._partial = b""
        self._budget = float(BURST_BYTES)
        self._refilled_at = now
        self._dropped = 0

    def read(self, now: float) -> tuple[str, int]:
        """The text of the lines that got complete, and the number of bytes dropped before it. `now` is in seconds."""
        try:
            data = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return "", 0
        if not data:
            self.ended = True
            return self._within_budget(self._cut(b"\n"), now) if self._partial else ("", 0)
        return self._within_budget(self._cut(data), now)

    def rest(self, now: float) -> tuple[str, int]:
        """What there is now, an unfinished last line too; for the worker's end."""
        text, dropped = self.read(now)
        last, more = self._within_budget(self._cut(b"\n"), now) if self._partial else ("", 0)
        return text + last, dropped + more

    def lost(self, size: int) -> None:
        """Count bytes that were read here and got no further."""
        self._dropped += size

    def close(self) -> None:
        os.close(self.descriptor)

    def _cut(self, data: bytes) -> bytes:
        lines, newline, self._partial = (self._partial + data).rpartition(b"\n")
        if len(self._partial) > LINE_BYTES:
            lines, newline, self._partial = lines + newline + self._partial, b"\n", b""
        return lines + newline

    def _within_budget(self, lines: bytes, now: float) -> tuple[str, int]:
        if not lines:
            return "", 0
        self._budget = min(BURST_BYTES, self._budget + (now - self._refilled_at) * BYTES_PER_SECOND)
        self._refilled_at = now
        cost = len(lines) + LINE_COST_BYTES * lines.count(b"\n")
        if cost > self._budget:
            self._dropped += len(lines)
            return "", 0
        self._budget -= cost
        dropped, self._dropped = self._dropped, 0
        return lines.decode("utf-8", "replace"), dropped
