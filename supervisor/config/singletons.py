"""The tables of lobu.toml for what runs once in the cluster: `[[watchers]]` and `[[telegram]]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from lobu_actors.contract.ids import is_id
from supervisor.config.settings import AgentConfig
from supervisor.config.table import Table
from supervisor.config.values import LOOPBACK_HOSTS
from supervisor.singletons.schedule import Schedule, ScheduleInvalid, Watcher, parse_schedule
from supervisor.singletons.telegram.bot import DEFAULT_API_URL, MAX_POLL_SECONDS, Bot, is_token

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
ANYBODY = "anybody"
_CHAT_ID_LIMIT = 2**53


def read_watchers(tables: list[Table], agents: Sequence[AgentConfig]) -> tuple[Watcher, ...]:
    watchers: list[Watcher] = []
    for table in tables:
        watcher_id = table.text("id")
        watcher = Watcher(
            id=watcher_id or "",
            agent_id=_agent(table, agents),
            schedule=_schedule(table),
            content=table.text("content") or "",
            enabled=table.boolean("enabled", True),
        )
        table.finish()
        if watcher_id is None:
            table.fail(None, 'has no id; add one, like id = "morning-report"')
        if not is_id(watcher_id):
            table.fail("id", "must be letters, digits and `. _ : @ + -`, at most 128 of them")
        if any(watcher_id == other.id for other in watchers):
            table.fail("id", f"is {watcher_id!r}, which another watcher has already; rename one")
        if not watcher.content:
            table.fail(None, "has no content; add what its agent is to be told")
        watchers.append(watcher)
    return tuple(watchers)


def _schedule(table: Table) -> Schedule:
    cron, timezone = table.text("cron"), table.text("timezone") or "UTC"
    if cron is None:
        table.lacks("cron", 'has no cron expression; add one, like cron = "0 9 * * MON-FRI"')
    try:
        return parse_schedule(cron, timezone)
    except ScheduleInvalid as error:
        table.fail("timezone" if "zone" in str(error) else "cron", str(error))


def read_telegram(tables: list[Table], agents: Sequence[AgentConfig], variables: Mapping[str, str]) -> tuple[Bot, ...]:
    """`variables`: the environment, where tokens are. One that is not set is left empty: most commands need none."""
    return tuple(_bot(table, agents, variables) for table in tables)


def _bot(table: Table, agents: Sequence[AgentConfig], variables: Mapping[str, str]) -> Bot:
    token_env = table.text("token_env")
    bot = Bot(
        token=variables.get(token_env or "", "").strip(),
        token_env=token_env or "",
        agent_id=_agent(table, agents),
        allowed_chats=_allowed_chats(table),
        api_url=_api_url(table),
        poll_seconds=table.integer("poll_seconds", MAX_POLL_SECONDS, least=1, most=MAX_POLL_SECONDS) or 1,
    )
    table.finish()
    if token_env is None:
        table.fail(None, 'has no token_env; name the environment variable with its bot\'s token, like "TELEGRAM_TOKEN"')
    if not _VARIABLE.match(token_env):
        table.fail("token_env", "must be the name of an environment variable, not the token itself")
    if bot.token and not is_token(bot.token):
        table.fail("token_env", f"names {token_env}, whose value is no bot token; those look like 110201543:AAHdqTcv…")
    return bot


def _agent(table: Table, agents: Sequence[AgentConfig]) -> str:
    """An agent that is everybody's."""
    agent_id = table.text("agent")
    if agent_id is None:
        return next(agent.id for agent in agents if agent.default)
    found = next((agent for agent in agents if agent.id == agent_id), None)
    if found is None:
        known = ", ".join(agent.id for agent in agents) or "none so far"
        table.fail("agent", f"is {agent_id!r}, which no [[agents]] table defines (defined: {known})")
    if found.owner is not None:
        table.fail("agent", f"is {agent_id!r}, which is one user's own; name one that is everybody's")
    return agent_id


def _allowed_chats(table: Table) -> frozenset[int] | None:
    value = table.raw("allowed_chats")
    if value == ANYBODY:
        return None
    if value is None:
        table.lacks("allowed_chats", f'has no allowed_chats; list chat ids, or say "{ANYBODY}", to let all in')
    if not isinstance(value, list):
        table.fail("allowed_chats", f'must be a list of chat ids, or "{ANYBODY}"')
    for index, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int) or abs(item) > _CHAT_ID_LIMIT:
            table.source.fail((*table.path, "allowed_chats", index), "must be a chat's id, a whole number")
    return frozenset(value)


def _api_url(table: Table) -> str:
    url = table.text("api_url") or DEFAULT_API_URL
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.username or parts.password:
        table.fail("api_url", f"must be like {DEFAULT_API_URL}")
    if parts.scheme == "http" and not _is_local(parts.hostname or ""):
        table.fail("api_url", "must begin with https, since the bot's token is part of every request")
    return url.rstrip("/")


def _is_local(host: str) -> bool:
    """A server of one's own, on this machine or next to it: a name without dots is not on the internet."""
    return host in LOOPBACK_HOSTS or ("." not in host and ":" not in host)
