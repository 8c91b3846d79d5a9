"""The clock of a run's deadlines stands still while workers are frozen."""

import pytest

from lobu_actors.conversation.running_clock import LOOK_SECONDS, RunningClock


class Real:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_it_stands_still_by_itself_and_goes_on_where_it_stood() -> None:
    real = Real()
    clock = RunningClock(real)
    assert clock.now() == 1000
    assert clock.go_on(1010) == 0
    real.at = 1005
    assert (clock.now(), clock.stands) == (1005, False)
    real.at = 1070
    assert (clock.now(), clock.stands) == (1010, True)
    assert clock.go_on(1080) == 60
    real.at = 1075
    assert clock.now() == 1015
    assert clock.go_on(1085) == 0
    real.at = 1100
    assert clock.now() == 1025


def test_when_a_deadline_will_really_be() -> None:
    real = Real()
    clock = RunningClock(real)
    assert clock.real(1020) == 1020
    clock.go_on(1000)
    real.at = 1060
    assert clock.real(1020) == 1080
    clock.go_on(2000)
    assert clock.real(1020) == 1080
    real.at = 1079
    assert clock.real(1020) == 1080


def test_when_to_look_whether_it_is_time() -> None:
    real = Real()
    clock = RunningClock(real)
    assert clock.look_at(1020) == 1020
    clock.go_on(1000)
    real.at = 1060
    assert clock.look_at(1020) == 1080
    assert clock.look_at(1000.001) == 1060 + LOOK_SECONDS
    clock.go_on(2000)
    assert clock.look_at(1000.001) == pytest.approx(1060.001)
