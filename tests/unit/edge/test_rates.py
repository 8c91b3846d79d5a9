"""The buckets of callers: what they let through, what they answer, what they keep."""

from __future__ import annotations

import pytest

from edge.errors import Refusal
from edge.rates import Rates
from edge.settings import EdgeSettings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def rates(clock: Clock, **settings: float) -> Rates:
    return Rates(EdgeSettings(**settings), clock)  # type: ignore[arg-type]


def through(rates: Rates, credential: str, tries: int) -> int:
    passed = 0
    for _ in range(tries):
        try:
            rates.take(credential)
        except Refusal:
            continue
        passed += 1
    return passed


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    buckets = rates(clock, requests_per_second=2, request_burst=5)
    assert through(buckets, "a", 9) == 5
    clock.now += 1
    assert through(buckets, "a", 9) == 2
    clock.now += 1000
    assert through(buckets, "a", 9) == 5


def test_callers_do_not_share() -> None:
    buckets = rates(Clock(), requests_per_second=1, request_burst=1)
    assert [through(buckets, name, 2) for name in "abc"] == [1, 1, 1]


@pytest.mark.parametrize(("rate", "wait"), [(0.1, "10"), (0.4, "3"), (0.5, "2"), (0.8, "2"), (50, "1")])
def test_it_says_when_to_come_again(rate: float, wait: str) -> None:
    clock = Clock()
    buckets = rates(clock, requests_per_second=rate, request_burst=1)
    buckets.take("a")
    with pytest.raises(Refusal) as caught:
        buckets.take("a")
    assert (caught.value.status, caught.value.code) == (429, "RATE_LIMITED")
    assert caught.value.headers["Retry-After"] == wait
    clock.now += float(wait)
    buckets.take("a")


def test_it_says_how_long_the_rest_of_a_wait_is() -> None:
    clock = Clock()
    buckets = rates(clock, requests_per_second=0.1, request_burst=1)
    buckets.take("a")
    for waited, left in [(6.5, "4"), (3.25, "1")]:
        clock.now += waited
        with pytest.raises(Refusal) as caught:
            buckets.take("a")
        assert caught.value.headers["Retry-After"] == left


def test_who_keeps_asking_still_gets_its_share() -> None:
    clock = Clock()
    buckets = rates(clock, requests_per_second=1, request_burst=1)
    passed = 0
    for _ in range(100):
        clock.now += 0.125
        passed += through(buckets, "a", 1)
    assert passed == 13  # the one at the beginning, and one for each whole second


def test_zero_means_any() -> None:
    buckets = rates(Clock(), requests_per_second=0, request_burst=1)
    assert through(buckets, "a", 1000) == 1000
    assert len(buckets) == 0


def test_only_so_many_callers_are_kept_and_the_busy_ones_stay() -> None:
    buckets = rates(Clock(), requests_per_second=1, request_burst=200, rate_entries=3)
    assert through(buckets, "busy", 100) == 100
    for number in range(100):
        buckets.take(str(number))
        buckets.take("busy")
    assert len(buckets) == 3
    with pytest.raises(Refusal):
        buckets.take("busy")


def test_who_was_away_longest_is_forgotten_first() -> None:
    """And begins with a full bucket; the newest is never the one to go, or nobody new would ever be counted."""
    buckets = rates(Clock(), requests_per_second=1, request_burst=1, rate_entries=2)
    for name in "abc":
        buckets.take(name)
    for name in "bc":
        with pytest.raises(Refusal):
            buckets.take(name)
    buckets.take("a")
