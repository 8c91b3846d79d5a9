"""When things happened to the run that goes on here: what no row says, kept in memory until the run's last statement.

Costs an attribute or a short tuple at each event, and nothing at each further piece of text. A supervisor that dies
takes its marks with it; what is in rows stays. Bounded: what comes after `MAX_MARKS` is counted, not kept.
"""

from __future__ import annotations

import attrs
import trio

from lobu_actors.contract.text import storable
from lobu_actors.contract.timeline import Moment

MAX_MARKS = 200
SHOWN_CHARS = 100

Mark = tuple[float, str, str | None]  # milliseconds from the run's start, name, detail


@attrs.define(eq=False)
class Marks:
    """Of one activation; `begin` is told of each run. Times are seconds on trio's clock."""

    before: list[tuple[float, Moment, str | None]] = attrs.field(factory=list)  # since the last run, for the next one
    start: float | None = None  # None: nothing runs
    awaits_text: bool = False  # the next piece of text is of interest
    worker_gone_at: float | None = None
    dropped: int = 0
    _marks: list[Mark] = attrs.field(factory=list)
    _tool: str | None = None

    def begin(self, start: float) -> None:
        """A run was made durable at `start`."""
        self.start, self.awaits_text, self._tool = start, True, None
        self.worker_gone_at, self.dropped = None, 0
        self._marks = []
        for at, name, detail in self.before:
            self._keep(at, name, detail)
        self.before = []

    def note(self, name: Moment, detail: str | None = None) -> None:
        """It happens now, to the run or, while there is none, for the next one."""
        now = trio.current_time()
        if self.start is None:
            if len(self.before) < MAX_MARKS:
                self.before.append((now, name, detail))
        else:
            self._keep(now, name, detail)

    def text(self) -> None:
        """Call it when text comes and `awaits_text`."""
        self.awaits_text = False
        self.tool(None)
        if not any(name == Moment.FIRST_DELTA for _, name, _ in self._marks):
            self.note(Moment.FIRST_DELTA)

    def tool(self, name: str | None) -> None:
        """A status said that this tool runs; None: that none does."""
        if name == self._tool:
            return
        if self._tool is not None:
            self.note(Moment.TOOL_ENDED)
        self._tool = name
        if name is not None:
            self.note(Moment.TOOL, storable(name)[:SHOWN_CHARS])
            self.awaits_text = True

    def worker_gone(self, status: str) -> None:
        if self.start is not None:
            self.worker_gone_at = trio.current_time()
            self.note(Moment.WORKER_GONE, status)

    def of_run(self, run_id: str | None) -> list[Mark]:
        """What the statement that ends the run is given; nothing for turns that never ran here."""
        return [] if run_id is None or self.start is None else self._marks

    def end(self) -> None:
        """The run is over, and its last statement has what was marked."""
        self.start, self.awaits_text = None, False
        self._marks = []

    def _keep(self, at: float, name: Moment, detail: str | None) -> None:
        if self.start is None or len(self._marks) >= MAX_MARKS:
            self.dropped += 1
            return
        self._marks.append((round((at - self.start) * 1e3, 1), name.value, detail))
