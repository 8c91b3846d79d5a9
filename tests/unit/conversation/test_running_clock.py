"""The clock of a run's deadlines stands still while workers are frozen."""

from lobu_actors.conversation.running_clock import RunningClock


class Real:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_it_stands_still_and_goes_on_where_it_stood() -> None:
    real = Real()
    clock = RunningClock(real)
    assert clock.now() == 1000
    real.at = 1010
    clock.stop()
    real.at = 1070
    clock.stop()
    assert clock.now() == 1010
    assert clock.start() == 60
    real.at = 1075
    assert clock.now() == 1015
    assert clock.start() == 0


def test_when_a_deadline_will_really_be() -> None:
    real = Real()
    clock = RunningClock(real)
    assert clock.real(1020) == 1020
    clock.stop()
    real.at = 1060
    assert clock.real(1020) == 1080
    clock.start()
    assert clock.real(1020) == 1080
    real.at = 1079
    assert clock.real(1020) == 1080
