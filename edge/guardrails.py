"""Input guardrails: what an agent's rules say about a message before it is accepted. Closed, not open: what cannot be
asked refuses. Also what no worker needs to be started for: an agent that demands a model, and none is named.

A verdict is not an answer to the request: it is stored with the turn, which its conversation's owner then ends with it.
Patterns are searched by an engine that takes time linear in the message, in a thread; programs run in processes of
their own. A program must also stand in this host's own settings: what is in the database alone is never executed.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Protocol

import msgspec
import structlog
import trio

from edge import metrics
from edge.dialects.messages import HISTORY, INSTRUCTIONS, TOOL_RESULTS
from edge.guardrail_command import CommandBroken, run_command
from edge.links import agent_settings_url
from edge.settings import EdgeSettings
from lobu_actors.contract.errors import TurnError, turn_error_text
from lobu_actors.contract.session_file import text_of
from lobu_actors.contract.text import storable
from lobu_actors.conversation.policy import AgentPolicy, Guardrail, PolicyError, compile_pattern
from lobu_actors.store.protocol import ConversationStore, TenantStore
from lobu_actors.store.records import NewTurn, Verdict

MAX_SAID_CHARS = 500
REQUIRES_MODEL = "requires_model"  # in an agent's settings
_LOGGED_CHARS = 300
_PASSES, _TRIPS = 0, 1

_log = structlog.get_logger(__name__)


class GuardrailStore(TenantStore, ConversationStore, Protocol):
    """What asking an agent's rules needs."""


class _Rules(msgspec.Struct, frozen=True):
    guardrails: tuple[Guardrail, ...]
    lacks_model: bool  # the agent demands a model, and names none itself


class Guardrails:
    """Asked once for every message; remembers agents' rules for `policy_cache_seconds`."""

    def __init__(self, store: GuardrailStore, settings: EdgeSettings) -> None:
        self._store = store
        self._settings = settings
        self._rules: OrderedDict[tuple[str, str], tuple[float, _Rules]] = OrderedDict()
        self._running = trio.CapacityLimiter(settings.guardrails_at_once)

    async def verdict(self, turn: NewTurn, user_id: str) -> Verdict | None:
        """None: it may pass. Raises StoreUnavailable when the agent's rules cannot be read."""
        try:
            rules = await self._rules_of(turn.ref.organization_id, turn.ref.agent_id)
        except PolicyError as error:
            _log.error("guardrails cannot be read", agent=turn.ref.agent_id, error=str(error))
            return _failed()
        if rules is None:
            # Were it configured again before its turn comes, the message would run unasked.
            return Verdict(TurnError.AGENT_DISABLED, turn_error_text(TurnError.AGENT_DISABLED))
        if rules.lacks_model and not await self._names_model(turn):
            metrics.GUARDRAILS.labels(TurnError.NO_MODEL_CONFIGURED.value).inc()
            return self._no_model(turn.ref.agent_id)
        if not rules.guardrails:
            return None
        found: Verdict | None = _failed()  # what holds when time runs out
        with trio.move_on_after(self._settings.guardrails_seconds) as scope:
            async with self._running:
                found = await self._ask_all(rules.guardrails, turn, user_id)
        if scope.cancelled_caught:
            _log.error("guardrails did not end in time", agent=turn.ref.agent_id)
        if found is not None:
            metrics.GUARDRAILS.labels(found.code).inc()
        return found

    async def _rules_of(self, organization_id: str, agent_id: str) -> _Rules | None:
        """None: there is no such agent, or it is disabled."""
        place, now = (organization_id, agent_id), trio.current_time()
        known = self._rules.get(place)
        if known is not None and now < known[0]:
            return known[1]
        agent = await self._store.find_agent(organization_id, agent_id)
        if agent is None:
            self._rules.pop(place, None)
            return None
        guardrails = AgentPolicy.from_json({"guardrails": agent.policy.get("guardrails", ())}).guardrails
        rules = _Rules(guardrails, lacks_model=agent.settings.get(REQUIRES_MODEL) is True and not agent.model)
        self._rules[place] = (now + self._settings.policy_cache_seconds, rules)
        self._rules.move_to_end(place)
        if len(self._rules) > self._settings.policy_cache_entries:
            self._rules.popitem(last=False)
        return rules

    async def _names_model(self, turn: NewTurn) -> bool:
        """Whether the message, or else its conversation as it now is, names a model."""
        named = turn.payload.get("model")
        if isinstance(named, str) and named.strip():
            return True
        conversation = await self._store.find_conversation(turn.ref.organization_id, turn.ref.conversation_id)
        return conversation is not None and bool(conversation.model)

    def _no_model(self, agent_id: str) -> Verdict:
        sentence, url = turn_error_text(TurnError.NO_MODEL_CONFIGURED), agent_settings_url(self._settings, agent_id)
        return Verdict(TurnError.NO_MODEL_CONFIGURED, f"{sentence} Set one at {url}", {"settingsUrl": url})

    async def _ask_all(self, rules: tuple[Guardrail, ...], turn: NewTurn, user_id: str) -> Verdict | None:
        for number, rule in enumerate(rules):
            try:
                said = await self._ask(rule, turn, user_id)
            except Exception as error:  # whatever broke, the message does not pass
                _log.error("guardrail failed", agent=turn.ref.agent_id, number=number, kind=rule.kind, error=str(error))
                return _failed()
            if said is not None:
                return Verdict(TurnError.GUARDRAIL_REJECTED, said)
        return None

    async def _ask(self, rule: Guardrail, turn: NewTurn, user_id: str) -> str | None:
        """The sentence it refuses with, or None. Raises CommandBroken."""
        if rule.pattern is not None:
            found = await trio.to_thread.run_sync(
                partial(_is_found, rule.pattern, [turn.content, *carried(turn.payload)]), abandon_on_cancel=True
            )
            return rule.message if found else None
        if rule.command not in self._settings.guardrail_commands:
            raise CommandBroken("this host's own configuration names no such program")
        ended = await run_command(rule.command, _given(turn, user_id), rule.timeout_seconds)
        if ended.exit_code == _PASSES:
            return None
        if ended.exit_code == _TRIPS:
            return _first_line(ended.stdout) or rule.message
        said = ended.stderr.decode(errors="replace")[:_LOGGED_CHARS]
        raise CommandBroken(f"it ended with {ended.exit_code}: {said}")


def _failed() -> Verdict:
    return Verdict(TurnError.GUARDRAIL_FAILED, turn_error_text(TurnError.GUARDRAIL_FAILED))


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    return compile_pattern(pattern)


def _is_found(pattern: str, texts: list[str]) -> bool:
    compiled = _compiled(pattern)
    return any(compiled.search(text.encode()) is not None for text in texts)


def carried(payload: Mapping[str, Any]) -> list[str]:
    """The texts beside its content that a message brings to the model: instructions, what was said before, results."""
    found = [payload.get(INSTRUCTIONS)]
    for name in (HISTORY, TOOL_RESULTS):
        items = payload.get(name)
        found += [item.get("content") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return [text for value in found if (text := text_of(value))]


def _given(turn: NewTurn, user_id: str) -> bytes:
    message: dict[str, Any] = {
        "content": turn.content,
        "agentId": turn.ref.agent_id,
        "conversationId": turn.ref.conversation_id,
        "userId": user_id,
        "messageId": turn.message_id,
    }
    if texts := carried(turn.payload):
        message["carried"] = texts
    return json.dumps(message).encode()


def _first_line(output: bytes) -> str:
    lines = storable(output.decode(errors="replace")).strip().splitlines()
    return lines[0].strip()[:MAX_SAID_CHARS] if lines else ""
