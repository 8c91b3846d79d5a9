"""Restart intensity, backoff and the registry's crash log: pure functions of given times."""

import math

import pytest

from lobu_actors.runtime.crash_log import CrashLog
from lobu_actors.runtime.intensity import Backoff, Intensity, record


def test_one_restart_more_than_allowed_within_the_window_is_too_many():
    history: tuple[float, ...] = ()
    verdicts = []
    for now in (0.0, 1.0, 2.0):
        history, exceeded = record(history, now, Intensity(2, 5.0))
        verdicts.append(exceeded)
    assert verdicts == [False, False, True]


def test_a_restart_exactly_as_old_as_the_window_still_counts_and_an_older_one_does_not():
    assert record((0.0,), 5.0, Intensity(1, 5.0)) == ((0.0, 5.0), True)
    assert record((0.0,), 5.01, Intensity(1, 5.0)) == ((5.01,), False)


def test_zero_restarts_means_the_first_is_too_many():
    assert record((), 9.0, Intensity(0, 5.0)) == ((9.0,), True)


@pytest.mark.parametrize(("restarts", "seconds"), [(-1, 1.0), (1, 0.0), (1, -1.0), (1, math.inf), (1, math.nan)])
def test_an_intensity_that_means_nothing_is_refused(restarts, seconds):
    with pytest.raises(ValueError, match="must be"):
        Intensity(restarts, seconds)


def test_backoff_grows_by_its_factor_up_to_its_limit():
    backoff = Backoff(0.5, 2.0, 3.0)
    assert [backoff.delay(n) for n in (1, 2, 3, 4, 5000)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    with pytest.raises(ValueError, match="from 1"):
        backoff.delay(0)


@pytest.mark.parametrize("values", [(-1.0, 2.0, 3.0), (4.0, 2.0, 3.0), (1.0, 0.5, 3.0), (1.0, 2.0, math.inf)])
def test_a_backoff_that_means_nothing_is_refused(values):
    with pytest.raises(ValueError, match="backoff"):
        Backoff(*values)


def test_a_key_is_in_quarantine_for_one_window_after_a_crash_too_many():
    log: CrashLog[str] = CrashLog(Intensity(1, 10.0))
    assert not log.record("a", 0.0)
    assert not log.is_quarantined("a", 0.0)
    assert log.record("a", 4.0)
    assert log.is_quarantined("a", 14.0)
    assert not log.is_quarantined("a", 14.1)
    assert not log.is_quarantined("b", 4.0)


def test_the_crash_log_forgets_keys_whose_last_crash_is_old():
    log: CrashLog[int] = CrashLog(Intensity(1, 10.0))
    for key in range(100):
        log.record(key, float(key))
    assert len(log) == 11
