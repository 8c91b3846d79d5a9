"""What of a configuration that was read again takes effect in a process that runs, and what needs a restart. Pure.

Taken are values that are looked up when something begins: a turn, a worker, a request. What sockets, leases, pools and
files were made with stays, and is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from supervisor.config.settings import Limits, Settings

# Of `[limits]`; each is looked up where something begins, and none is bound by one that is not here (`read_limits`).
RELOADED_LIMITS = frozenset(
    {
        "cancel_grace_seconds",
        "crash_loop_crashes",
        "crash_loop_period_seconds",
        "drain_grace_seconds",
        "message_max_bytes",
        "ping_seconds",
        "queue_max_turns",
        "reply_max_bytes",
        "run_max_open_questions",
        "request_burst",
        "requests_per_second",
        "session_ttl_seconds",
        "stream_buffer_bytes",
        "streams_per_conversation",
        "streams_per_process",
        "ticket_ttl_seconds",
        "token_ttl_seconds",
        "upload_max_files",
    }
)
RELOADED = frozenset({"agents", "workers", "worker_env"})
_IRRELEVANT = frozenset({"config_file", "data_dir", "managed", "rollout_strategy"})
_NAMES = {
    "admin_key": "LOBU_ADMIN_KEY",
    "allow_multi_host": "LOBU_ALLOW_MULTI_HOST",
    "jwt_keys": "LOBU_JWT_KEYS",
    "log_format": "LOBU_LOG",
    "organization_id": "organization",
    "session_store": "LOBU_SESSION_STORE",
    "shared_sessions": "LOBU_SHARED_SESSIONS",
    "worker_env": "WORKER_ENV_*",
}


@attrs.frozen
class Change:
    """`settings` are to be in force now. Names as an operator writes them."""

    settings: Settings
    taken: tuple[str, ...]
    needs_restart: tuple[str, ...]


def change_of(running: Settings, found: Settings) -> Change:
    """What follows for a process that runs with `running` when `found` was read."""
    taken: list[str] = []
    needs_restart: list[str] = []
    new = {}
    for field in attrs.fields(Settings):
        name = field.name
        if name in _IRRELEVANT or name in ("limits", "edge") or getattr(found, name) == getattr(running, name):
            continue
        if name in RELOADED:
            taken.append(_NAMES.get(name, name))
            new[name] = getattr(found, name)
        else:
            needs_restart.append(_NAMES.get(name, name))
    limits = {}
    for field in attrs.fields(Limits):
        if getattr(found.limits, field.name) == getattr(running.limits, field.name):
            continue
        if field.name in RELOADED_LIMITS:
            taken.append(f"limits.{field.name}")
            limits[field.name] = getattr(found.limits, field.name)
        else:
            needs_restart.append(f"limits.{field.name}")
    needs_restart += [f"edge.{name}" for name in sorted(_differing(running.edge.given(), found.edge.given()))]
    settings = attrs.evolve(running, limits=attrs.evolve(running.limits, **limits), **new)
    return Change(settings, tuple(taken), tuple(needs_restart))


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def changed_agents(before: Settings, after: Settings) -> frozenset[str]:
    """Ids of agents that are not as they were, or whose worker type is not. Gone ones and new ones count."""
    old, new = (
        {agent.id: (agent, settings.workers.get(agent.worker)) for agent in settings.agents}
        for settings in (before, after)
    )
    return frozenset(_differing(old, new))
