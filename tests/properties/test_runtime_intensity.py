"""Restart intensity against a model that remembers every restart there ever was."""

from hypothesis import given
from hypothesis import strategies as st

from lobu_actors.runtime.crash_log import CrashLog
from lobu_actors.runtime.intensity import Backoff, Intensity, record

# Whole numbers of quarter seconds, so that a restart often lies exactly on the edge of the window.
quarters = st.integers(0, 40).map(lambda n: n / 4)
intensities = st.builds(Intensity, st.integers(0, 5), quarters.filter(bool))


@given(intensities, st.lists(quarters, max_size=40))
def test_it_is_exceeded_exactly_when_the_window_before_a_restart_holds_too_many(intensity, gaps):
    history: tuple[float, ...] = ()
    everything: list[float] = []
    now = 0.0
    for gap in gaps:
        now += gap
        everything.append(now)
        history, exceeded = record(history, now, intensity)
        in_window = [then for then in everything if then >= now - intensity.within_seconds]
        assert exceeded == (len(in_window) > intensity.max_restarts)
        assert len(history) <= intensity.max_restarts + 1


@given(intensities, st.lists(st.tuples(st.sampled_from("abc"), quarters), max_size=40))
def test_the_crash_log_keeps_one_independent_history_for_each_key(intensity, crashes):
    log: CrashLog[str] = CrashLog(intensity)
    everything: list[tuple[str, float]] = []
    verdicts: dict[str, tuple[float, bool]] = {}
    now = 0.0
    for key, gap in crashes:
        now += gap
        everything.append((key, now))
        in_window = [t for k, t in everything if k == key and t >= now - intensity.within_seconds]
        exceeded = log.record(key, now)
        assert exceeded == (len(in_window) > intensity.max_restarts)
        verdicts[key] = (now, exceeded)
        for other, (then, was_exceeded) in verdicts.items():
            assert log.is_quarantined(other, now) == (was_exceeded and now - then <= intensity.within_seconds)


@given(st.floats(0, 10), st.floats(1, 10), st.floats(10, 100), st.integers(1, 10_000))
def test_backoff_never_shrinks_and_never_passes_its_limit(initial, factor, limit, number):
    backoff = Backoff(initial, factor, limit)
    assert 0 <= backoff.delay(number) <= backoff.delay(number + 1) <= limit
