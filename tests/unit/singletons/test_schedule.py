"""When watchers are due: next, for all that were missed, and in hours that come never or twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobu_actors.contract.ids import is_conversation_key, is_message_id
from supervisor.singletons.schedule import Schedule, ScheduleInvalid, Watcher, parse_schedule
from supervisor.singletons.scheduler import firing_of

CRONS = ("* * * * *", "*/7 * * * *", "30 2 * * *", "15 1,2,3 * * *", "0 9 * * MON-FRI", "0 */5 * * *", "5 * * * * *")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "America/Havana", "Asia/Kolkata")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "timezone", "after", "due"),
    [
        ("0 9 * * *", "UTC", "2026-11-20 08:59:59.5", "2026-11-20 09:00"),
        ("0 9 * * *", "UTC", "2026-11-20 09:00", "2026-11-21 09:00"),
        ("0 9 * * *", "Europe/Berlin", "2026-11-20 00:00", "2026-11-20 08:00"),
        ("0 9 * * *", "Europe/Berlin", "2026-07-20 00:00", "2026-07-20 07:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29 00:00", "2026-03-29 01:00"),  # 02:30 does not exist: 03:00 it is
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 22:00", "2026-10-25 00:30"),  # twice: the first of them
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 00:30", "2026-10-26 01:30"),  # and not the second
        ("* * * * * *", "UTC", "2026-11-20 00:00:01", "2026-11-20 00:00:02"),
    ],
)
def test_the_next_time(cron: str, timezone: str, after: str, due: str) -> None:
    schedule = parse_schedule(cron, timezone)
    assert schedule.next_after(at(after)) == at(due)
    assert schedule.latest_due(at(after), at(due)) == at(due)
    assert schedule.latest_due(at(after), at(due) - timedelta(microseconds=1)) is None


def test_of_all_that_were_missed_the_latest_stands_for_them() -> None:
    schedule = parse_schedule("*/10 * * * *", "UTC")
    assert schedule.latest_due(at("2026-01-01 00:00"), at("2026-11-20 09:59:59")) == at("2026-11-20 09:50")


def test_what_was_due_before_an_hour_came_again_is_still_due_then() -> None:
    """02:30 has been; at the second 02:10 a look back by the clock on the wall would find yesterday's."""
    schedule = parse_schedule("30 2 * * *", "Europe/Berlin")
    assert schedule.latest_due(at("2026-10-25 00:00"), at("2026-10-25 01:10")) == at("2026-10-25 00:30")


_TIMES = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 30), timezones=st.just(UTC))


@given(st.sampled_from(CRONS), st.sampled_from(ZONES), _TIMES, st.integers(0, 40 * 3600))
def test_the_latest_is_the_last_of_all_times(cron: str, timezone: str, after: datetime, seconds: int) -> None:
    """Looking backwards and walking forwards agree, in every zone and at every change of its clocks."""
    schedule, now = Schedule(cron, timezone), after + timedelta(seconds=seconds)
    last, step = None, schedule.next_after(after)
    while step is not None and step <= now:
        assert step > after
        last, after_step = step, step
        step = schedule.next_after(after_step)
    assert schedule.latest_due(after, now) == last


@pytest.mark.parametrize("change", ["2026-03-29 01:00", "2026-10-25 01:00"])
@pytest.mark.parametrize("cron", CRONS)
def test_where_clocks_change_nothing_fires_twice_or_is_left_out(cron: str, change: str) -> None:
    """Asked every minute, as the scheduler does, each time that the expression has comes once."""
    schedule = Schedule(cron, "Europe/Berlin")
    begin, end = at(change) - timedelta(hours=3), at(change) + timedelta(hours=3)
    asked, considered, now = [], begin, begin
    while now < end:
        now += timedelta(minutes=1)
        if (due := schedule.latest_due(considered, now)) is not None:
            asked.append(due)
            considered = due
    walked, step = [], schedule.next_after(begin)
    while step is not None and step <= end:
        walked.append(step)
        step = schedule.next_after(step)
    assert asked == walked


@pytest.mark.parametrize(
    ("cron", "timezone", "reason"),
    [
        ("* * * *", "UTC", "Wrong number of fields"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("0 0 30 2 *", "UTC", "Bad day-of-month"),
        ("@daily", "UTC", "Wrong number"),
        ("* * * * *", "Mars/Olympus", "time zone"),
        ("* * * * *", "../../etc/passwd", "time zone"),
        ("* * * * *", "", "time zone"),
        ("0 0 29 2 MON#5", "UTC", None),
    ],
)
def test_what_cannot_be_is_refused(cron: str, timezone: str, reason: str | None) -> None:
    if reason is None:
        parse_schedule(cron, timezone)
    else:
        with pytest.raises(ScheduleInvalid, match=reason):
            parse_schedule(cron, timezone)


def test_a_firing_is_named_by_watcher_and_time() -> None:
    watcher = Watcher("report", "echo", Schedule("* * * * *"), "hello")
    one, again = (firing_of("acme", watcher, at("2026-11-20 09:00")) for _ in range(2))
    assert one.ref.conversation_id == "echo_watcher_report_run_20261120T090000Z"
    assert (one.ref, one.message_id, one.content) == (again.ref, again.message_id, "hello")
    assert firing_of("acme", watcher, at("2026-11-20 09:01")).ref != one.ref
    assert is_conversation_key(one.ref.conversation_id)
    assert is_message_id(one.message_id)
