"""What a guardrail refused ends at once with its own sentence, and neither stops nor joins anything on its way."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, RunStatus, TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.decide import decide
from lobu_actors.conversation.drain_messages import ReleaseLease
from lobu_actors.conversation.policy import AgentPolicy, Deadlines, FailurePolicy, Guardrail, PolicyError
from lobu_actors.conversation.state import Limits, Moment, State
from lobu_actors.conversation.worker_port import WorkerReady
from lobu_actors.store.records import Turn, Verdict

REF = ConversationRef("org", "echo", "echo_u_org")


def turn(number: int = 1, said: str | None = None, on_busy: OnBusy = OnBusy.ENQUEUE) -> Turn:
    at = datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC)
    verdict = None if said is None else Verdict("GUARDRAIL_REJECTED", said)
    return Turn(REF, f"t{number}", f"m{number}", "hi", on_busy, {}, TurnStatus.QUEUED, 1, 0, 0, 0, at, verdict=verdict)


def tell(state: State, *messages: m.Message) -> tuple[State, list[m.Effect]]:
    effects: list[m.Effect] = []
    for message in messages:
        state, more = decide(state, message, Moment(1000.0, "r1"))
        effects += more
    return state, effects


def running() -> State:
    state = State(REF, Deadlines(), FailurePolicy(), Limits(), has_agent=True)
    ready = WorkerReady("w1", 7, 1.0, frozenset({"steer", "cancel"}))
    return tell(state, m.TurnAccepted(turn()), m.WorkerStarting("w1"), ready, m.RunBegun("r1"))[0]


def end(refused: Turn) -> m.FinishTurns:
    assert refused.verdict is not None
    return m.FinishTurns(
        None, (refused,), TurnStatus.FAILED, RunStatus.FAILED, code="GUARDRAIL_REJECTED", error=refused.verdict.error
    )


@pytest.mark.parametrize("on_busy", [OnBusy.ENQUEUE, OnBusy.STEER, OnBusy.INTERRUPT, OnBusy.MERGE])
def test_it_ends_at_once_beside_a_live_run(on_busy: OnBusy) -> None:
    state, refused = running(), turn(2, "No.", on_busy)
    after, effects = tell(state, m.TurnAccepted(refused))
    assert effects == [end(refused)]
    assert after == state
    after, effects = tell(after, m.TurnsFinished(("t2",)), m.TurnAccepted(refused))
    assert effects == []
    assert after.run == state.run


def test_its_event_tells_the_verdicts_context() -> None:
    refused = replace(turn(1), verdict=Verdict("NO_MODEL_CONFIGURED", "None.", {"settingsUrl": "/ops"}))
    _, [ended] = tell(State(REF, Deadlines(), FailurePolicy(), Limits(), has_agent=True), m.TurnAccepted(refused))
    assert isinstance(ended, m.FinishTurns)
    assert (ended.code, ended.error, ended.context) == ("NO_MODEL_CONFIGURED", "None.", {"settingsUrl": "/ops"})


def test_after_recovery_each_ends_with_its_own_sentence_and_the_rest_goes_on() -> None:
    first, second, third = turn(1, "One."), turn(2), turn(3, "Three.")
    state = State(REF, Deadlines(), FailurePolicy(), Limits(), has_agent=True)
    state, effects = tell(state, m.Recovered((first, second, third)))
    assert effects == [end(first), end(third), m.StartWorker()]
    assert state.queue == (second,)


def test_it_ends_while_draining_and_without_an_agent() -> None:
    state = State(REF, Deadlines(), FailurePolicy(), Limits(), has_agent=False)
    for base in (state, replace(state, draining=True, has_agent=True)):
        _, effects = tell(base, m.TurnAccepted(turn(1, "No.")))
        assert effects[0] == end(turn(1, "No."))
        assert effects[1:] == ([ReleaseLease(owes=False)] if base.draining else [])


def test_a_message_with_files_waits_for_a_run_of_its_own() -> None:
    brings = replace(turn(2, on_busy=OnBusy.STEER), payload={"files": [{"name": "a"}]})
    state, effects = tell(running(), m.TurnAccepted(brings))
    assert effects == []
    assert state.queue == (brings,)
    _, effects = tell(running(), m.TurnAccepted(replace(brings, payload={})))
    assert isinstance(effects[0], m.JoinRun)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"kind": "pattern", "pattern": "(?=x)"}, "pattern"),
        ({"kind": "pattern", "pattern": r"(a)\1"}, "pattern"),
        ({"kind": "pattern", "pattern": "x" * 10_001}, "pattern"),
        ({"kind": "pattern"}, "pattern"),
        ({"kind": "pattern", "pattern": "x", "command": ["x"]}, "command"),
        ({"kind": "command"}, "command"),
        ({"kind": "command", "command": "check"}, "command"),
        ({"kind": "command", "command": ["a", 1]}, "command"),
        ({"kind": "command", "command": ["a\0b"]}, "command"),
        ({"kind": "command", "command": ["a"], "pattern": "x"}, "pattern"),
        ({"kind": "command", "command": ["a"], "timeout_seconds": 61}, "timeout_seconds"),
        ({"kind": "command", "command": ["a"], "timeout_seconds": 0}, "timeout_seconds"),
        ({"kind": "model"}, "kind"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_its_key(given: object, key: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Guardrail.from_json(given)
    assert caught.value.key == key


def test_rules_survive_being_stored() -> None:
    rules = (Guardrail("pattern", "a+"), Guardrail("command", command=("check", "-x"), timeout_seconds=2))
    policy = AgentPolicy(guardrails=rules)
    assert AgentPolicy.from_json(policy.to_json()) == policy
