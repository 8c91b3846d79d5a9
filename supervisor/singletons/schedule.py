"""When a watcher is due: a cron expression in a time zone. Pure; the expressions are cronsim's, thus Debian cron's.

Five fields, or six with seconds first. Where clocks are put forward, a time that does not exist is due when the gap
ends; where they are put back, a time that comes twice is due the first time (a field of hours or minutes that begins
with `*`, and six fields, follow the real time that passes).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import attrs
import msgspec
from cronsim import CronSim, CronSimError


class ScheduleInvalid(Exception):
    """Why the expression or the time zone cannot be used; one sentence without a subject."""


@attrs.frozen
class Schedule:
    """Made by `parse_schedule`. All times that go in and come out know their zone; those that come out are in UTC."""

    cron: str
    timezone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.cron} {self.timezone}"

    def next_after(self, after: datetime) -> datetime | None:
        """The first time behind `after`; None when there is none within fifty years."""
        return _first(CronSim(self.cron, after.astimezone(_zone(self.timezone))))

    def latest_due(self, after: datetime, now: datetime) -> datetime | None:
        """The last time behind `after` and not behind `now`: the one firing that stands for all that were missed."""
        first = self.next_after(after)
        if first is None or first > now:
            return None
        behind = now.replace(microsecond=0) + timedelta(seconds=1)
        last = _first(CronSim(self.cron, behind.astimezone(_zone(self.timezone)), reverse=True))
        # In an hour that comes twice, looking back from its second coming does not see its first.
        return first if last is None or last > now else max(first, last)


class Watcher(msgspec.Struct, frozen=True):
    """What fires, when, and what it says to which agent."""

    id: str
    agent_id: str
    schedule: Schedule
    content: str
    enabled: bool = True


def parse_schedule(cron: str, timezone: str) -> Schedule:
    """Raises ScheduleInvalid."""
    try:
        _zone(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleInvalid("names a time zone that this machine does not know; write it like Europe/Paris") from None
    schedule = Schedule(" ".join(cron.split()), timezone)
    try:
        found = schedule.next_after(datetime.now(UTC))
    except CronSimError as error:
        raise ScheduleInvalid(f"is no cron expression ({error}); write it like 0 9 * * MON-FRI") from None
    if found is None:
        raise ScheduleInvalid("names a date that never comes")
    return schedule


def _first(times: CronSim) -> datetime | None:
    found = next(times, None)
    return None if found is None else found.astimezone(UTC)


def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)
