"""One activation's part in traces: what a worker is told of them, and the spans of what is over. Costs a look at a
field where nobody wants spans."""

from __future__ import annotations

from collections.abc import Callable

import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.tracing import TRACEPARENT, context_of_turn, span_id_of, traceparent
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.marks import Marks
from lobu_actors.conversation.spans import Ended, SpanSink, spans_of
from lobu_actors.store.records import Turn


class Traces:
    def __init__(self, ref: ConversationRef, sink: SpanSink | None, marks: Marks, clock_ms: Callable[[], int]) -> None:
        self._ref = ref
        self._sink = sink
        self._marks = marks
        self._clock_ms = clock_ms

    def for_worker(self, turn: Turn, run_id: str) -> str | None:
        """The run's span, if it will be told of; else whatever the client gave, if anything."""
        if self._sink is None:
            given = turn.payload.get(TRACEPARENT)
            return given if isinstance(given, str) else None
        return traceparent(context_of_turn(turn.turn_id, turn.payload), span_id_of(run_id))

    def finished(self, effect: m.FinishTurns) -> None:
        """Call it before the marks are ended."""
        if self._sink is not None:
            turns = [turn for turn in effect.turns if isinstance(turn, Turn)]
            self._tell(effect.run_id, turns, effect.status.value, effect.code, ends=True)

    def requeued(self, effect: m.RequeueTurns) -> None:
        if self._sink is not None and effect.run_id is not None:
            self._tell(effect.run_id, list(effect.turns), "requeued", effect.code, ends=False)

    def _tell(self, run_id: str | None, turns: list[Turn], status: str, code: str | None, *, ends: bool) -> None:
        assert self._sink is not None
        end_ms, start = float(self._clock_ms()), self._marks.start
        took_ms = 0.0 if start is None else (trio.current_time() - start) * 1e3
        ended = Ended(
            self._ref,
            turns,
            status,
            code,
            end_ms,
            run_id=None if start is None else run_id,
            attempt=max((turn.attempt for turn in turns), default=1),
            start_ms=end_ms - took_ms,
            marks=self._marks.of_run(run_id),
            ends=ends,
        )
        for span in spans_of(ended):
            self._sink(span)
