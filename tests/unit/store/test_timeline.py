"""A timeline is made from rows and marks: in order, from the acceptance, whoever saw what."""

from __future__ import annotations

from lobu_actors.contract.events import EventType
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.timeline import timeline
from lobu_actors.store.timeline_protocol import EventHistory, RunHistory, TurnHistory

START = 1_800_000_000_000.0


def run(started: float, ended: float | None, *marks: tuple[float, str, str | None], **more: object) -> RunHistory:
    fields = {"attempt": 1, "status": RunStatus.COMPLETED, "error_code": None, "exit_status": None} | more
    return RunHistory(
        run_id="r1", host_id="h1234567890", epoch=1, started_ms=START + started,
        ended_ms=None if ended is None else START + ended, marks=marks, **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def history(*runs: RunHistory, ended: float | None = 20.0, **more: object) -> TurnHistory:
    fields = {"status": TurnStatus.COMPLETED, "error_code": None, "events": ()} | more
    ended_ms = None if ended is None else START + ended
    return TurnHistory("t1", "m1", accepted_ms=START, ended_ms=ended_ms, runs=runs, **fields)  # type: ignore[arg-type]


def shown(found: TurnHistory, delivered: tuple[float, int] | None = None) -> list[tuple[float, str]]:
    return [(entry.since_start_ms, entry.name.value) for entry in timeline(found, delivered)]


def test_the_usual_life() -> None:
    marks = [(-3.0, "lease", "epoch 1"), (0.5, "sent", None), (4.2, "first-delta", None)]
    found = history(run(5, 19, *marks))
    assert shown(found, (START + 21, 2)) == [
        (0.0, "accepted"),
        (2.0, "lease"),
        (5.0, "started"),
        (5.5, "sent"),
        (9.2, "first-delta"),
        (20.0, "committed"),
        (21.0, "delivered"),
    ]
    assert timeline(found, (START + 21, 2))[-1].to_json() == {
        "at": 1_800_000_000_021,
        "name": "delivered",
        "sinceStartMs": 21.0,
        "detail": "2 streams",
    }


def test_an_attempt_that_was_put_back_and_one_that_nobody_saw_the_end_of() -> None:
    lost = run(5, 100, status=RunStatus.REQUEUED, error_code="HOST_LOST")
    events = (EventHistory(EventType.RESTART, START + 110, "retry"),)
    again = run(110, None, attempt=2, status=RunStatus.LIVE)
    found = history(lost, again, ended=None, status=TurnStatus.RUNNING, events=events)
    assert [(entry.name.value, entry.detail) for entry in timeline(found)] == [
        ("accepted", None),
        ("started", "attempt 1, run r1, host h1234567"),
        ("requeued", "HOST_LOST"),
        ("started", "attempt 2, run r1, host h1234567"),
        ("restart", "retry"),
    ]


def test_a_turn_that_joined_a_run_sees_nothing_from_before_its_acceptance() -> None:
    found = history(run(-50, 19, (0.5, "sent", None), (60.0, "tool", "search")))
    assert shown(found) == [(0.0, "accepted"), (0.0, "started"), (10.0, "tool"), (20.0, "committed")]


def test_a_failed_turn_says_its_code_and_unknown_marks_are_left_out() -> None:
    found = history(run(1, 2, (0.1, "from-the-future", None)), status=TurnStatus.FAILED, error_code="WORKER_CRASHED")
    entries = timeline(found)
    assert [entry.name.value for entry in entries] == ["accepted", "started", "committed"]
    assert entries[-1].detail == "failed WORKER_CRASHED"


def test_what_has_a_mark_and_a_row_is_shown_once_and_causes_come_first() -> None:
    """Here the database's times are a little ahead of the marks', as far as the start of the run was told inexactly."""
    marks = [
        (1.0, "tool", "search"),
        (6.0, "tool-ended", None),
        (7.0, "question", "q1"),
        (18.5, "cancel", "worker-stopped"),
    ]
    events = (EventHistory(EventType.QUESTION, START + 5, "q1"), EventHistory(EventType.QUESTION, START + 9, "q2"))
    found = history(run(1, 15, *marks), ended=15.0, events=events)
    assert shown(found, (START + 15, 1)) == [
        (0.0, "accepted"),
        (1.0, "started"),
        (2.0, "tool"),
        (7.0, "tool-ended"),
        (8.0, "question"),
        (9.0, "question"),
        (19.5, "cancel"),
        (19.5, "committed"),
        (19.5, "delivered"),
    ]


def test_delivery_by_another_clock_is_not_before_the_commit() -> None:
    assert shown(history(run(1, 2)), (START - 500, 1))[-1] == (20.0, "delivered")
