"""A run goes on under the next supervisor wherever the last one died: one end, its whole text, no question twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lobu_actors.contract.frames import TEXT_OFFSET
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.policy import FailurePolicy
from tests.properties.adoption_world import AdoptionWorld

WHOLE = frozenset({"cancel", "ask", "reattach", TEXT_OFFSET})
PLAIN = WHOLE - {TEXT_OFFSET}
NONE = frozenset({"cancel", "ask"})

LIFE = [
    *["accept", "begin and die"] * 2,
    *["ready"] * 3,
    *["write"] * 4,
    *["ask"] * 2,
    "finish",
    *["hear"] * 6,
    *["deliver"] * 6,
    *["answer", "answer unheard"],
    *["time"] * 2,
    *["kill supervisor", "kill at effect"] * 2,
    *["sweep"] * 3,
    *["another supervisor"] * 3,
]
GENTLE = st.lists(st.sampled_from(LIFE), min_size=20, max_size=60)
ROUGH = st.lists(st.sampled_from([*LIFE, "die", "cancel", "long time"]), min_size=20, max_size=60)


def take_step(world: AdoptionWorld, step: str, data: st.DataObject) -> None:
    process = world.process
    match step:
        case "accept":
            world.accept(hint=False)
            world.told(m.Sweep())
        case "begin and die":
            world.ready()
            world.accept(hint=False)
            world.killed_after = 1
            world.told(m.Sweep())
        case "ready":
            world.ready()
        case "write" if process is not None:
            process.write(data.draw(st.integers(1, 7)))
        case "ask" if process is not None:
            process.ask()
        case "finish" if process is not None:
            process.finish()
        case "hear" if process is not None:
            process.hear()
        case "deliver":
            world.deliver(data.draw(st.integers(1, 4)))
        case "answer":
            world.answer_question(hint=True)
        case "answer unheard":
            world.answer_question(hint=False)
        case "time":
            world._guarded(lambda: world.pass_time(0.4))
        case "long time":
            world._guarded(lambda: world.pass_time(3000.0))
        case "kill supervisor":
            world.kill_supervisor()
        case "kill at effect":
            world.killed_after = data.draw(st.integers(0, 6))
        case "another supervisor":
            world.kill_supervisor()
            world.told(m.Sweep())
        case "sweep":
            world.told(m.Sweep())
        case "die":
            world.worker_dies(1)
        case "cancel":
            world.told(m.CancelRequest(None))


def settle(world: AdoptionWorld) -> None:
    """From here on nothing bad happens, and a person answers what is asked."""
    world.killed_after = None
    for _ in range(400):
        world.told(m.Sweep())
        world.ready()
        if world.process is not None:
            world.process.hear()
        world.deliver(3)
        world.answer_question(hint=False)
        world.pass_time(0.5)
        if world.process is not None and not world.process.inbox and not world.process.out:
            world.process.finish()
        if not world.owed:
            return
    raise AssertionError(f"still owed after all went well: {world.owed}")


def check_ends(world: AdoptionWorld) -> None:
    ends = {turn_id: len(world.terminals.get(turn_id, [])) for turn_id in world.turns}
    assert ends == dict.fromkeys(world.turns, 1)
    for [end] in world.terminals.values():
        event(end)
        assert end not in ("CANCELLED", "RUN_UNKNOWN")


def check_texts_and_questions(world: AdoptionWorld) -> None:
    for shown, written in world.texts:
        assert shown == written
    asked = Counter((row.run_id, row.worker_question_id) for row in world.asked)
    assert all(number == 1 for number in asked.values()), asked


MANY = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(st.data(), GENTLE)
def test_supervisors_that_die_cost_no_attempt(data: st.DataObject, steps: list[str]) -> None:
    world = AdoptionWorld(capabilities=WHOLE)
    for step in steps:
        take_step(world, step, data)
    settle(world)
    check_ends(world)
    check_texts_and_questions(world)
    assert {end for ends in world.terminals.values() for end in ends} <= {"completed"}
    assert Counter(world.begun) == dict.fromkeys(world.turns, 1), "a second attempt"


@MANY
@given(st.data(), ROUGH, st.sampled_from([WHOLE, NONE]), st.sampled_from(["fail", "retry"]))
def test_whatever_else_happens_each_turn_ends_once(
    data: st.DataObject, steps: list[str], capabilities: frozenset[str], rule: str
) -> None:
    world = AdoptionWorld(
        capabilities=capabilities, failure=FailurePolicy(crash=rule, timeout=rule, host_lost=rule, max_attempts=3)
    )
    for step in steps:
        take_step(world, step, data)
    settle(world)
    check_ends(world)
    check_texts_and_questions(world)


@MANY
@given(st.data(), ROUGH)
def test_a_worker_that_cannot_say_where_its_text_begins_ends_once(data: st.DataObject, steps: list[str]) -> None:
    world = AdoptionWorld(capabilities=PLAIN)
    for step in steps:
        take_step(world, step, data)
    settle(world)
    check_ends(world)
