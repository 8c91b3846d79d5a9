"""A turn's timeline from what is known of it: its rows, and what the owners of its attempts marked. Pure.

Rows have the database's clock. Marks are milliseconds from their run's start, which is a row's time, so that a host
whose clock is wrong shows true durations; they are as exact as half the round trip of the statement that began the run.
What has both a mark and a row is shown by its mark, and a run's end not before its last mark, so that causes stand
before what they caused.
"""

from __future__ import annotations

from collections.abc import Iterator

from lobu_actors.contract.events import EventType
from lobu_actors.contract.states import TERMINAL_TURN_STATUSES, RunStatus
from lobu_actors.contract.timeline import Entry, Moment
from lobu_actors.store.timeline_protocol import RunHistory, TurnHistory

SHOWN_ID = 8

_OF_EVENTS = {
    EventType.QUESTION: Moment.QUESTION,
    EventType.QUESTION_ANSWERED: Moment.ANSWERED,
    EventType.CANCEL: Moment.CANCEL,
    EventType.RESTART: Moment.RESTART,
}
_NAMES = {moment.value: moment for moment in Moment}

_Found = tuple[float, Moment, str | None]


def timeline(history: TurnHistory, delivered: tuple[float, int] | None = None) -> list[Entry]:
    """All entries in the order of their times. `delivered`: when the first stream was given the terminal event, in
    milliseconds since the epoch, and how many were."""
    found: list[_Found] = [(history.accepted_ms, Moment.ACCEPTED, None)]
    for run in history.runs:
        found += _attempt(run, history.accepted_ms)
    marked = {(moment, detail) for _, moment, detail in found}
    for event in history.events:
        moment = _OF_EVENTS.get(event.type)
        if moment is not None and (moment, event.detail) not in marked:
            found.append((event.at_ms, moment, event.detail))
    if history.ended_ms is not None and history.status in TERMINAL_TURN_STATUSES:
        committed_ms = max([history.ended_ms, *(at_ms for at_ms, _, _ in found)])
        found.append((committed_ms, Moment.COMMITTED, _said(history.status.value, history.error_code)))
    if delivered is not None:
        at_ms, streams = delivered
        said = "1 stream" if streams == 1 else f"{streams} streams"
        found.append((max([at_ms, *(one[0] for one in found)]), Moment.DELIVERED, said))
    return [_entry(one, history.accepted_ms) for one in sorted(found, key=lambda one: one[0])]


def _attempt(run: RunHistory, accepted_ms: float) -> Iterator[_Found]:
    joined = run.started_ms < accepted_ms
    said = f"attempt {run.attempt}, run {run.run_id}, host {run.host_id[:SHOWN_ID]}"
    yield max(run.started_ms, accepted_ms), Moment.STARTED, f"{said}, joined" if joined else said
    for offset_ms, name, detail in run.marks:
        at_ms = run.started_ms + offset_ms
        if (moment := _NAMES.get(name)) is not None and not (joined and at_ms < accepted_ms):
            yield max(at_ms, accepted_ms), moment, detail
    if run.status is RunStatus.REQUEUED and run.ended_ms is not None:
        last_ms = max((run.started_ms + offset for offset, _, _ in run.marks), default=run.ended_ms)
        yield max(run.ended_ms, last_ms), Moment.REQUEUED, run.error_code


def _said(*words: str | None) -> str:
    return " ".join(word for word in words if word)


def _entry(found: _Found, accepted_ms: float) -> Entry:
    at_ms, moment, detail = found
    return Entry(round(at_ms, 1), moment, round(at_ms - accepted_ms, 1), detail)
