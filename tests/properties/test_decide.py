"""I1, I2, I4 of the deciding itself: whatever happens in whatever order, every accepted turn ends exactly once."""

from __future__ import annotations

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lobu_actors.contract.frames import (
    Ask,
    Complete,
    Delta,
    Ephemeral,
    Fail,
    Frame,
    Heartbeat,
    Status,
    Unknown,
)
from lobu_actors.contract.states import OnBusy
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.drain_messages import BeginAnew, DrainRequest
from lobu_actors.conversation.policy import FailurePolicy
from tests.properties.conversation_world import World

CODES = st.sampled_from(["SESSION_TIMEOUT", "PROVIDER_AUTH", "not a code", "X" * 200])


def frames(run_id: str, message_ids: list[str]) -> st.SearchStrategy[Frame]:
    read = st.none() | st.lists(st.sampled_from([*message_ids, "unknown"]), max_size=3)
    run = st.sampled_from([run_id, run_id, run_id, "another-run"])
    return st.one_of(
        st.builds(Delta, run_id=run, text=st.text(max_size=5)),
        st.builds(Complete, run_id=run, text=st.none() | st.text(max_size=5), processed_message_ids=read),
        st.builds(Fail, run_id=run, code=CODES),
        st.builds(
            Status,
            run_id=run,
            status=st.just("s"),
            phase=st.sampled_from([None, "tool", "model"]),
            code=st.none() | CODES,
        ),
        st.builds(Ask, run_id=run, question_id=st.sampled_from(["q1", "q2"]), prompt=st.just("?")),
        st.builds(Ephemeral, run_id=run, text=st.just("note")),
        st.just(Heartbeat()),
        st.just(Unknown(type="news")),
    )


ON_BUSY = st.sampled_from([OnBusy.ENQUEUE, OnBusy.MERGE, OnBusy.STEER, OnBusy.INTERRUPT])
STEPS = st.sampled_from(
    [
        *["accept"] * 4,
        "accept unheard",
        "reset",
        "accept refused",
        "repeat hint",
        *["ready"] * 4,
        *["frames"] * 8,
        *["time"] * 2,
        "die",
        "die 124",
        "cancel all",
        "cancel one",
        "answer",
        "lease lost",
        "supervisor killed",
        "sweep",
        *["stand by"] * 4,
        *["commit"] * 4,
        *["settle"] * 4,
        "drain",
        "reload",
    ]
)
STEPS_AND_ROT = st.one_of(STEPS, STEPS, STEPS, st.just("rot"))


def take_step(world: World, step: str, data: st.DataObject) -> None:
    match step:
        case "accept":
            world.accept(hint=True, on_busy=data.draw(ON_BUSY))
        case "accept refused":
            world.accept(hint=data.draw(st.booleans()), on_busy=data.draw(ON_BUSY), refused=True)
        case "reset":
            world.accept(hint=data.draw(st.booleans()), on_busy=data.draw(ON_BUSY), content="/new")
        case "accept unheard":
            world.accept(hint=False, on_busy=data.draw(ON_BUSY))
        case "repeat hint":
            world.repeat_hint(data.draw(st.integers(0, 20)))
        case "ready":
            world.ready()
        case "frames":
            said = frames(world.current_run or "none", [turn.message_id for turn in world.turns.values()])
            world.say(tuple(data.draw(st.lists(said, min_size=1, max_size=4))))
        case "time":
            world.pass_time(data.draw(st.sampled_from([0.1, 1.0, 16.0, 130.0, 2000.0, 90_000.0])))
        case "die":
            world.worker_dies(1)
        case "die 124":
            world.worker_dies(124)
        case "cancel all":
            world.tell(m.CancelRequest(None))
        case "cancel one":
            ids = [turn.message_id for turn in world.turns.values()] or ["none"]
            world.tell(m.CancelRequest(data.draw(st.sampled_from(ids))))
        case "answer":
            world.answer(data.draw(st.integers(0, 3)))
        case "lease lost":
            world.another_host_takes_over()
        case "supervisor killed":
            world.actor_is_lost()
        case "sweep":
            world.tell(m.Sweep())
        case "stand by":
            world.take_standby()
        case "commit":
            world.commit_standby()
        case "settle":
            world.settle_standby(known=data.draw(st.sampled_from([True, True, True, False])))
        case "rot":
            world.rot(data.draw(st.integers(0, 5)), data.draw(st.booleans()))
        case "drain":
            world.tell(DrainRequest(world.now + 5))
        case "reload":
            world.tell(BeginAnew())


def settle(world: World) -> None:
    """From here on nothing bad happens: the sweeper sweeps, workers start and reply. Bounded."""
    world.settle_standby()  # an edge settles in any case
    world.actor_is_lost()  # also ends a drain: the next host starts
    for _ in range(200):
        if not world.owed:
            return
        world.tell(m.Sweep())
        world.ready()
        if world.current_run is not None:
            world.say((Complete(run_id=world.current_run, processed_message_ids=[]),))  # it reads as little as it can
        world.pass_time(5)
    raise AssertionError(f"still owed after all went well: {world.owed}")


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.data(),
    st.lists(STEPS_AND_ROT, max_size=40),
    st.sampled_from(["fail", "retry"]),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_accepted_turn_ends_exactly_once(
    data: st.DataObject, steps: list[str], rule: str, max_attempts: int, can_cancel: bool
) -> None:
    policy = FailurePolicy(crash=rule, timeout=rule, host_lost=rule, max_attempts=max_attempts)
    world = World(failure=policy, capabilities=frozenset({"cancel", "steer"} if can_cancel else ()))
    for step in steps:
        take_step(world, step, data)
    settle(world)
    for ends in world.terminals.values():
        event(str(ends))
    event(f"returned: {world.returned > 0}")
    event(f"begun with its acceptance: {world.begun_at_once > 0}")
    assert {turn_id: len(world.terminals.get(turn_id, [])) for turn_id in world.turns} == dict.fromkeys(world.turns, 1)
    assert set(world.terminals) <= set(world.turns)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["accept", "ready", "reply", "die", "lost", "stand by", "commit", "settle"]), max_size=40)
)
def test_turns_begin_in_the_order_of_acceptance(steps: list[str]) -> None:
    world = World()
    for step in steps:
        match step:
            case "accept":
                world.accept(hint=True)
            case "ready":
                world.ready()
            case "reply" if world.current_run is not None:
                world.say((Complete(run_id=world.current_run),))
            case "die":
                world.worker_dies(1)
            case "lost":
                world.actor_is_lost()
            case "stand by":
                world.take_standby()
            case "commit":
                world.commit_standby()
            case "settle":
                world.settle_standby()
    settle(world)
    first_begun = list(dict.fromkeys(world.begun))
    assert first_begun == [turn_id for turn_id in world.turns if turn_id in world.begun]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.lists(STEPS, max_size=30))
def test_closing_ends_everything_and_then_closes(data: st.DataObject, steps: list[str]) -> None:
    world = World()
    for step in steps:
        take_step(world, step, data)
    world.actor_is_lost()
    world.tell(m.CloseRequest())
    assert world.closed
    assert not world.owed
    assert world.replies[-1] is True
    assert all(len(ends) == 1 for ends in world.terminals.values())
    assert world.worker is None or world.state is not None


AROUND_STANDBY = st.sampled_from(
    [
        *["stand by", "commit", "settle"] * 4,
        *["ready", "reply"] * 3,
        *["accept", "sweep", "die", "cancel all", "lease lost", "supervisor killed", "drain", "reload", "time"],
    ]
)


@settings(max_examples=1500, deadline=None)
@given(st.data(), st.lists(AROUND_STANDBY, max_size=30), st.booleans())
def test_what_begins_with_its_acceptance_ends_exactly_once(
    data: st.DataObject, steps: list[str], loses_it: bool
) -> None:
    """From an actor at rest with a worker, whatever happens while an edge commits; `loses_it`: outcomes get lost."""
    world = World(failure=FailurePolicy(host_lost="retry", max_attempts=3))
    world.accept(hint=True)
    world.ready()
    world.say((Complete(run_id=world.current_run or ""),))
    for step in steps:
        if step == "reply":
            world.say((Complete(run_id=world.current_run or "none"),))
        elif step == "settle":
            world.settle_standby(known=not loses_it or data.draw(st.booleans()))
        else:
            take_step(world, step, data)
    settle(world)
    event(f"begun with their acceptance: {min(world.begun_at_once, 3)}")
    assert {turn_id: len(world.terminals.get(turn_id, [])) for turn_id in world.turns} == dict.fromkeys(world.turns, 1)
