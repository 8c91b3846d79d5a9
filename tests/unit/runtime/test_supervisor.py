"""Supervisors on a clock that jumps: start and stop order, restart types, strategies, intensity, backoff."""

from itertools import pairwise

import pytest
import trio
import trio.testing

from lobu_actors.runtime.child_spec import ChildContext, ChildSpec, Restart
from lobu_actors.runtime.errors import (
    ActorStopped,
    RestartIntensityExceeded,
)
from lobu_actors.runtime.intensity import Backoff, Intensity
from lobu_actors.runtime.supervisor import ChildEvent, EventKind, Strategy, Supervisor
from lobu_actors.runtime.tree import NodeState

QUICK = Backoff(0.0, 1.0, 0.0)


def states(supervisor: Supervisor) -> dict[str, str]:
    return {node.name: str(node.state) for node in supervisor.snapshot().children}


async def test_children_start_in_order_each_after_the_one_before_and_stop_in_reverse(serving, autojump_clock):
    log: list[str] = []

    def slow(id: str, seconds: float) -> ChildSpec:
        async def run(context: ChildContext) -> None:
            log.append(f"begin {id}")
            await trio.sleep(seconds)
            log.append(f"ready {id}")
            context.started()
            await context.stopping.wait()
            await trio.sleep(seconds)
            log.append(f"end {id}")

        return ChildSpec(id, run)

    async with serving(Supervisor("s", [slow("a", 3), slow("b", 2), slow("c", 1)])):
        assert log == ["begin a", "ready a", "begin b", "ready b", "begin c", "ready c"]
        log.clear()
    assert log == ["end c", "end b", "end a"]


@pytest.mark.parametrize("error", [None, ValueError("broken"), ExceptionGroup("two", [ValueError(), KeyError()])])
@pytest.mark.parametrize("restart", list(Restart))
async def test_each_restart_type_after_each_kind_of_exit(new_family, serving, restart, error, autojump_clock):
    family, events = new_family(), list[ChildEvent]()
    supervisor = Supervisor("s", [family.child("a", restart=restart)], backoff=QUICK, on_event=events.append)
    async with serving(supervisor):
        await family.end("a", error)
        again = restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and error is not None)
        assert family.log == (["+a", "-a", "+a"] if again else ["+a", "-a"])
        assert supervisor.snapshot().children[0].restarts == int(again)
        assert states(supervisor)["a"] == ("running" if again else "stopped" if error is None else "failed")
    kinds = [str(event.kind) for event in events]
    assert kinds[:2] == ["started", "exited"]
    assert events[1].error is error
    assert kinds[2:] == (["restarting", "started", "exited"] if again else [])


@pytest.mark.parametrize(
    ("strategy", "log"),
    [
        (Strategy.ONE_FOR_ONE, ["-b", "+b"]),
        (Strategy.REST_FOR_ONE, ["-b", "-d", "-c", "+b", "+c", "+d"]),
        (Strategy.ONE_FOR_ALL, ["-b", "-d", "-c", "-a", "+a", "+b", "+c", "+d"]),
    ],
)
async def test_strategies_stop_in_reverse_and_start_in_order(new_family, serving, strategy, log, autojump_clock):
    family = new_family()
    async with serving(Supervisor("s", [family.child(id) for id in "abcd"], strategy, backoff=QUICK)):
        family.log.clear()
        await family.end("b", ValueError())
        assert family.log == log


async def test_a_temporary_sibling_that_a_strategy_stopped_is_not_started_again(new_family, serving, autojump_clock):
    family = new_family()
    children = [family.child("a"), family.child("b", restart=Restart.TEMPORARY), family.child("c")]
    async with serving(Supervisor("s", children, Strategy.ONE_FOR_ALL, backoff=QUICK)):
        family.log.clear()
        await family.end("a", ValueError())
        assert family.log == ["-a", "-c", "-b", "+a", "+c"]


async def test_children_that_crash_at_the_same_time_are_restarted_once_each(new_family, serving, autojump_clock):
    for strategy in (Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL):
        family = new_family()
        supervisor = Supervisor("s", [family.child(id) for id in "abc"], strategy, Intensity(2, 5.0), QUICK)
        async with serving(supervisor):
            for id in "ab":
                family._endings[id](ValueError())
            await trio.testing.wait_all_tasks_blocked()
            assert set(states(supervisor).values()) == {"running"}
            assert [family.log.count(f"+{id}") for id in "ab"] == [2, 2]


async def test_too_many_restarts_stop_all_in_reverse_and_raise_the_last_error_as_the_cause(new_family, autojump_clock):
    family, events = new_family(), list[ChildEvent]()
    supervisor = Supervisor(
        "s", [family.child(id) for id in "abc"], intensity=Intensity(2, 5.0), on_event=events.append
    )
    errors = [ValueError(n) for n in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_crash_one_after_another, family, errors)
        with pytest.raises(RestartIntensityExceeded) as caught:
            await supervisor.run(ChildContext("s"))
    assert caught.value.child_id == "b"
    assert caught.value.error is errors[-1]
    assert caught.value.__cause__ is errors[-1]
    assert family.log[-3:] == ["-b", "-c", "-a"]
    assert [event.kind for event in events if event.child_id == "b"][-2:] == [EventKind.EXITED, EventKind.GAVE_UP]
    assert states(supervisor) == {"a": "stopped", "b": "failed", "c": "stopped"}
    assert supervisor.snapshot().state is NodeState.FAILED


async def _crash_one_after_another(family, errors: list[ValueError]) -> None:
    for error in errors:
        await trio.sleep(1)
        await family.end("b", error)


async def test_restarts_that_are_far_enough_apart_go_on_for_ever(new_family, serving, autojump_clock):
    family = new_family()
    async with serving(Supervisor("s", [family.child("a")], intensity=Intensity(1, 5.0))):
        for _ in range(10):
            await trio.sleep(6)
            await family.end("a", ValueError())
        await trio.sleep(1)
        assert family.log.count("+a") == 11


async def test_restarts_wait_for_the_backoff_which_grows(autojump_clock):
    starts: list[float] = []

    async def run(context: ChildContext) -> None:
        starts.append(trio.current_time())
        context.started()
        raise ValueError

    with pytest.raises(RestartIntensityExceeded):
        await Supervisor(
            "s", [ChildSpec("a", run)], intensity=Intensity(4, 60.0), backoff=Backoff(1.0, 2.0, 5.0)
        ).serve()
    gaps = [b - a for a, b in pairwise(starts)]
    assert gaps == pytest.approx([1.0, 2.0, 4.0, 5.0])


async def test_a_stop_interrupts_a_backoff(new_family, serving, autojump_clock):
    family = new_family()
    supervisor = Supervisor("s", [family.child("a")], intensity=Intensity(1, 900.0), backoff=Backoff(500.0, 1.0, 500.0))
    before = trio.current_time()
    async with serving(supervisor):
        await family.end("a", ValueError())
        assert states(supervisor) == {"a": "backoff"}
        with pytest.raises(ActorStopped):
            supervisor.value("a")
    assert trio.current_time() - before < 500
    assert states(supervisor) == {"a": "stopped"}
    assert family.log == ["+a", "-a"]
