"""Supervisors on a clock that jumps: failed starts, timeouts, kills, cancellation from outside, nesting."""

import pytest
import trio
import trio.testing

from lobu_actors.runtime.child_spec import ChildContext, ChildSpec, Restart
from lobu_actors.runtime.errors import (
    ChildNeverStarted,
    ChildStartFailed,
    RestartIntensityExceeded,
    StartTimeout,
)
from lobu_actors.runtime.intensity import Backoff, Intensity
from lobu_actors.runtime.supervisor import ChildEvent, EventKind, Strategy, Supervisor
from lobu_actors.runtime.tree import NodeState, render

QUICK = Backoff(0.0, 1.0, 0.0)
OFTEN = Intensity(100, 1000.0)


def states(supervisor: Supervisor) -> dict[str, str]:
    return {node.name: str(node.state) for node in supervisor.snapshot().children}


async def forever(context: ChildContext) -> None:
    context.started()
    await trio.sleep_forever()


async def until_stopped(context: ChildContext) -> None:
    context.started()
    await context.stopping.wait()


async def test_a_child_that_fails_at_first_start_fails_the_supervisor_and_stops_the_others(new_family, autojump_clock):
    family, error = new_family(), OSError("no port")

    async def fail(context: ChildContext) -> None:
        raise error

    with pytest.raises(ChildStartFailed) as caught:
        await Supervisor("s", [family.child("a"), ChildSpec("b", fail), family.child("c")]).serve()
    assert caught.value.child_id == "b"
    assert caught.value.__cause__ is error
    assert family.log == ["+a", "-a"]


async def test_a_child_that_ends_before_it_started_failed_to_start(autojump_clock):
    async def run(context: ChildContext) -> None:
        await trio.sleep(1)

    with pytest.raises(ChildStartFailed) as caught:
        await Supervisor("s", [ChildSpec("a", run, Restart.TEMPORARY)]).serve()
    assert isinstance(caught.value.__cause__, ChildNeverStarted)


async def test_a_child_that_does_not_start_in_time_is_cancelled(autojump_clock):
    cleanup = OSError("while cancelled")

    async def run(context: ChildContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise cleanup

    before = trio.current_time()
    with pytest.raises(ChildStartFailed) as caught:
        await Supervisor("s", [ChildSpec("a", run, start_timeout_seconds=7.0)]).serve()
    assert trio.current_time() - before == pytest.approx(7.0)
    assert isinstance(caught.value.__cause__, StartTimeout)
    assert caught.value.__cause__.__cause__ is not None


async def test_a_restart_that_fails_to_start_counts_as_the_next_restart(serving, autojump_clock):
    starts = 0

    async def run(context: ChildContext) -> None:
        nonlocal starts
        starts += 1
        if starts in (2, 3):
            raise OSError("not yet")
        context.started()
        if starts == 1:
            raise ValueError
        await context.stopping.wait()

    supervisor = Supervisor("s", [ChildSpec("a", run)], intensity=Intensity(3, 5.0), backoff=QUICK)
    async with serving(supervisor):
        await trio.testing.wait_all_tasks_blocked()
        assert (starts, states(supervisor)) == (4, {"a": "running"})
    starts = 0
    with pytest.raises(RestartIntensityExceeded):
        await Supervisor("s", [ChildSpec("a", run)], intensity=Intensity(2, 5.0), backoff=QUICK).serve()


async def test_a_group_restart_that_fails_half_way_starts_the_whole_rest_when_it_works(
    new_family, serving, autojump_clock
):
    family, failures = new_family(), 1

    async def flaky(context: ChildContext) -> None:
        nonlocal failures
        if "-a" in family.log and failures:
            failures -= 1
            raise OSError("not yet")
        await family._run(context)

    children = [family.child("a"), ChildSpec("b", flaky), family.child("c")]
    for strategy in (Strategy.REST_FOR_ONE, Strategy.ONE_FOR_ALL):
        family.log.clear()
        failures = 1
        supervisor = Supervisor("s", children, strategy, backoff=QUICK)
        async with serving(supervisor):
            await family.end("a", ValueError())
            assert states(supervisor) == {"a": "running", "b": "running", "c": "running"}
            assert family.log.count("+c") == 2


async def test_a_child_that_ignores_the_stop_is_cancelled_after_its_shutdown_time(serving, autojump_clock):
    supervisor = Supervisor("s", [ChildSpec("a", forever, shutdown_seconds=4.0)])
    async with serving(supervisor):
        before = trio.current_time()
    assert trio.current_time() - before == pytest.approx(4.0)
    assert states(supervisor) == {"a": "stopped"}


async def test_brutal_kill_cancels_at_once_although_the_child_would_stop(serving, autojump_clock):
    polite_end = False

    async def run(context: ChildContext) -> None:
        nonlocal polite_end
        context.started()
        await context.stopping.wait()
        await trio.sleep(1)
        polite_end = True

    async with serving(Supervisor("s", [ChildSpec("a", run, shutdown_seconds=0)])):
        before = trio.current_time()
    assert trio.current_time() == before
    assert not polite_end


async def test_a_child_that_shields_itself_after_its_cancellation_is_waited_for(serving, autojump_clock):
    async def run(context: ChildContext) -> None:
        context.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(9, shield=True):
                await trio.sleep_forever()

    async with serving(Supervisor("s", [ChildSpec("a", run, shutdown_seconds=1)])):
        before = trio.current_time()
    assert trio.current_time() - before == pytest.approx(10.0)


async def test_a_stop_during_the_start_stops_what_has_started(new_family, autojump_clock):
    family = new_family()

    async def never(context: ChildContext) -> None:
        await context.stopping.wait()

    supervisor = Supervisor("s", [family.child("a"), ChildSpec("b", never), family.child("c")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.serve)
        await trio.testing.wait_all_tasks_blocked()
        assert states(supervisor) == {"a": "running", "b": "starting", "c": "stopped"}
        supervisor.stop()
    assert family.log == ["+a", "-a"]


async def test_a_stop_before_serve_is_not_forgotten(autojump_clock):
    supervisor = Supervisor("s", [ChildSpec("a", forever)])
    supervisor.stop()
    await supervisor.serve()
    assert states(supervisor) == {"a": "stopped"}


async def test_what_a_child_passes_to_started_can_be_read(new_family, serving):
    async with serving(Supervisor("s", [new_family().child("a")])) as supervisor:
        assert supervisor.value("a") == "value of a"
        with pytest.raises(KeyError):
            supervisor.value("b")


async def test_an_error_while_stopping_is_told_and_does_not_keep_others_from_stopping(
    new_family, serving, autojump_clock
):
    family, events, error = new_family(), list[ChildEvent](), ValueError("late")

    async def run(context: ChildContext) -> None:
        context.started()
        await context.stopping.wait()
        raise error

    async with serving(Supervisor("s", [family.child("a"), ChildSpec("b", run)], on_event=events.append)):
        pass
    assert family.log == ["+a", "-a"]
    assert [event.error for event in events if event.kind is EventKind.EXITED] == [error, None]


async def _serve_and_cancel(supervisor: Supervisor) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.serve)
        nursery.cancel_scope.cancel()


async def test_cancellation_from_outside_cancels_all_and_is_no_failure(autojump_clock):
    events: list[ChildEvent] = []
    supervisor = Supervisor("s", [ChildSpec("a", forever), ChildSpec("b", forever)], on_event=events.append)
    await _serve_and_cancel(supervisor)
    assert [event.kind for event in events] == [EventKind.STARTED, EventKind.STARTED]
    assert states(supervisor) == {"a": "stopped", "b": "stopped"}


async def test_an_error_during_a_cancellation_from_outside_is_not_lost(autojump_clock):
    async def run(context: ChildContext) -> None:
        context.started()
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup")

    for _ in range(10):  # the scheduler's order differs from time to time
        with pytest.raises(ExceptionGroup) as caught:
            await _serve_and_cancel(Supervisor("s", [ChildSpec("a", run)]))
        assert caught.value.subgroup(ValueError) is not None


async def test_what_is_no_exception_is_not_a_childs_failure(new_family, serving, autojump_clock):
    family = new_family()

    class Shutdown(BaseException):
        pass

    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(Supervisor("s", [family.child("a")])):
            await family.end("a", Shutdown())
    assert caught.value.subgroup(Shutdown) is not None
    assert family.log.count("+a") == 1


async def test_a_failing_event_callback_ends_the_supervisor(autojump_clock):
    def fail(event: ChildEvent) -> None:
        raise RuntimeError("log is full")

    with pytest.raises(ExceptionGroup) as caught:
        await Supervisor("s", [ChildSpec("a", forever)], on_event=fail).serve()
    assert caught.value.subgroup(RuntimeError) is not None


async def test_a_supervisor_can_run_again_but_not_twice_at_a_time(serving, autojump_clock):
    supervisor = Supervisor("s", [ChildSpec("a", until_stopped)])
    for _ in range(2):
        async with serving(supervisor):
            with pytest.raises(RuntimeError, match="already"):
                await supervisor.serve()
            assert states(supervisor) == {"a": "running"}


async def test_a_nested_supervisor_that_gives_up_is_restarted_by_its_parent_and_shown_in_the_tree(
    new_family, serving, autojump_clock
):
    family = new_family()
    inner = Supervisor("inner", [family.child("x"), family.child("y")], intensity=Intensity(0, 5.0))
    outer = Supervisor("outer", [family.child("a"), inner.as_child()], intensity=OFTEN, backoff=QUICK)
    async with serving(outer):
        family.log.clear()
        await family.end("x", ValueError())
        assert family.log == ["-x", "-y", "+x", "+y"]
        assert render(outer.snapshot()).splitlines() == [
            "outer (supervisor) running",
            "├─ a (child) running",
            "└─ inner (supervisor) running, 1 restart",
            "   ├─ x (child) running",
            "   └─ y (child) running",
        ]
        family.log.clear()
    assert family.log == ["-y", "-x", "-a"]
    assert {node.state for node in outer.snapshot().children[1].children} == {NodeState.STOPPED}


async def test_a_nested_supervisor_that_fails_to_start_fails_its_parents_start(autojump_clock):
    async def fail(context: ChildContext) -> None:
        raise OSError("deep down")

    inner = Supervisor("inner", [ChildSpec("x", fail)])
    with pytest.raises(ChildStartFailed) as caught:
        await Supervisor("outer", [inner.as_child()]).serve()
    assert isinstance(caught.value.__cause__, ChildStartFailed)
    assert isinstance(caught.value.__cause__.__cause__, OSError)
    assert inner.snapshot().state is NodeState.FAILED


async def test_a_nested_supervisor_that_is_restarted_begins_with_a_fresh_intensity(new_family, serving, autojump_clock):
    family = new_family()
    inner = Supervisor("inner", [family.child("x")], intensity=Intensity(1, 500.0), backoff=QUICK)
    outer = Supervisor("outer", [inner.as_child()], intensity=OFTEN, backoff=QUICK)
    async with serving(outer):
        restarts = []
        for _ in range(4):
            await family.end("x", ValueError())
            restarts.append(outer.snapshot().children[0].restarts)
        assert restarts == [0, 1, 1, 2]
