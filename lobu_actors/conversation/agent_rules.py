"""What an agent's record says, read for the actors of its conversations: once, however many these are.

Every activation brings the record anew. As long as it is the one that other actors here go by, they share it: read,
it takes three kilobytes.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import attrs
import msgspec

from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.store.records import Agent


class AgentRules(msgspec.Struct, frozen=True, weakref=True):
    """`agent` None: there is none any more, and the rest is what holds without one."""

    agent: Agent | None
    deadlines: Deadlines
    deadline_seconds: dict[str, float]  # the same by name, for a worker
    failure: FailurePolicy
    settings: dict[str, Any]  # for a worker: the agent's, and its model among them unless they name one

    @property
    def runs(self) -> bool:
        return self.agent is not None and not self.agent.disabled


def read_rules(agent: Agent | None) -> AgentRules:
    """Raises PolicyError for a value that no policy may have."""
    policy = agent.policy if agent is not None else {}
    deadlines = Deadlines.from_json(policy.get("deadlines", {}))
    settings = agent.settings if agent is not None else {}
    if agent is not None and agent.model is not None:
        settings = {"model": agent.model, **settings}
    failure = FailurePolicy.from_json(policy.get("failure", {}))
    return AgentRules(agent, deadlines, attrs.asdict(deadlines), failure, settings)


class AgentsInUse:
    """The rules of those that conversations here have now."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[str, str], AgentRules] = WeakValueDictionary()

    def rules(self, agent: Agent | None) -> AgentRules:
        """As `read_rules`."""
        if agent is None:
            return read_rules(None)
        place = agent.organization_id, agent.agent_id
        known = self._known.get(place)
        if known is None or known.agent != agent:
            known = self._known[place] = read_rules(agent)
        return known
