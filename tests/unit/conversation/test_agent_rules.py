"""What an agent's record says is read once for all conversations that go by it."""

from __future__ import annotations

import gc

import pytest
from msgspec.structs import replace

from lobu_actors.conversation.agent_rules import AgentsInUse, read_rules
from lobu_actors.conversation.policy import PolicyError
from lobu_actors.store.records import Agent

POLICY = {"deadlines": {"turn_seconds": 60}, "failure": {"crash": "retry"}}


def agent(**changes: object) -> Agent:
    """Made anew each time, as an activation's is."""
    made = Agent("acme", "helper", "echo", settings={"temperature": 1}, policy={**POLICY})
    return replace(made, **changes)


def test_the_same_record_is_read_once():
    in_use = AgentsInUse()
    rules = in_use.rules(agent())
    assert in_use.rules(agent()) is rules
    assert (rules.deadlines.turn_seconds, rules.deadline_seconds["turn_seconds"]) == (60, 60)
    assert (rules.failure.crash, rules.settings, rules.runs) == ("retry", {"temperature": 1}, True)


@pytest.mark.parametrize(
    "changes", [{"settings": {}}, {"model": "m"}, {"policy": {}}, {"disabled": True}, {"worker": "other"}]
)
def test_one_that_changed_is_read_again(changes):
    in_use = AgentsInUse()
    before = in_use.rules(agent())
    after = in_use.rules(agent(**changes))
    assert after == read_rules(agent(**changes)) != before
    assert in_use.rules(agent(**changes)) is after


def test_one_agent_s_are_no_other_s():
    in_use = AgentsInUse()
    kept = [in_use.rules(agent()), in_use.rules(agent(organization_id="rival")), in_use.rules(agent(agent_id="b"))]
    assert [(rules.agent.organization_id, rules.agent.agent_id) for rules in kept] == [
        ("acme", "helper"),
        ("rival", "helper"),
        ("acme", "b"),
    ]


def test_what_nobody_goes_by_is_forgotten():
    in_use = AgentsInUse()
    in_use.rules(agent())
    gc.collect()
    assert not in_use._known


def test_its_model_is_among_what_a_worker_is_told_unless_the_settings_name_one():
    assert read_rules(agent(model="m")).settings == {"model": "m", "temperature": 1}
    assert read_rules(agent(model="m", settings={"model": "own"})).settings == {"model": "own"}


def test_without_an_agent_nothing_runs():
    rules = AgentsInUse().rules(None)
    assert (rules.runs, rules.settings, rules.deadlines) == (False, {}, read_rules(agent(policy={})).deadlines)
    assert not read_rules(agent(disabled=True)).runs


def test_a_deadline_that_is_none_is_refused():
    with pytest.raises(PolicyError):
        AgentsInUse().rules(agent(policy={"deadlines": {"turn_seconds": 0}}))
