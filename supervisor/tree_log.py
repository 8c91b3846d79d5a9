"""What the supervisor tree's log lines are: starts and stops at debug, what went wrong in a running child as an error.

A child that never came up is no line of its own: its error goes to whoever started the tree, who tells it as one
sentence. Only the log is owned here; nothing is decided.
"""

from __future__ import annotations

import structlog

from lobu_actors import telemetry
from lobu_actors.runtime.child_slot import EventKind
from lobu_actors.runtime.supervisor import ChildEvent

log = structlog.get_logger(__name__)


class TreeLog:
    """An `on_event` for all supervisors of one tree."""

    def __init__(self) -> None:
        self._has_run: set[tuple[str, str]] = set()

    def __call__(self, event: ChildEvent) -> None:
        child = (event.supervisor, event.child_id)
        if event.kind is EventKind.STARTED:
            self._has_run.add(child)
        if event.error is None or child not in self._has_run:
            log.debug("child", supervisor=event.supervisor, child=event.child_id, kind=event.kind.value)
            return
        telemetry.CHILD_FAILURES.labels(event.child_id).inc()
        log.error(
            "child failed",
            supervisor=event.supervisor,
            child=event.child_id,
            kind=event.kind.value,
            restarts=event.restarts,
            exc_info=event.error,
        )
