"""The edge's settings, from lobu.toml: its own table, and what in the others concerns it.

Their defaults and bounds are the edge's; which of them stand in which table is said here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from edge.settings import BOUNDS, EdgeSettings
from supervisor.config.settings import Settings
from supervisor.config.table import Table

# By their names in `EdgeSettings`, those that stand in `[limits]`: callers notice them, or others heed them too.
_OF_LIMITS = {
    "max_message_bytes": "message_max_bytes",
    "max_owed_turns": "queue_max_turns",
    "max_snapshot_bytes": "session_file_max_bytes",
    "max_streams": "streams_per_process",
    "max_streams_per_conversation": "streams_per_conversation",
    "request_burst": "request_burst",
    "requests_per_second": "requests_per_second",
    "session_seconds": "session_ttl_seconds",
    "stream_buffer_bytes": "stream_buffer_bytes",
    "ticket_seconds": "ticket_ttl_seconds",
    "upload_file_max_bytes": "upload_file_max_bytes",
    "upload_max_files": "upload_max_files",
    "upload_total_max_bytes": "upload_total_max_bytes",
}
_OTHERS = frozenset(
    {
        "cancel_on_disconnect",
        "guardrail_commands",
        "organization_id",
        "ping_seconds",
        "public_url",
        "token_lifetime_seconds",
    }
)
OWN = tuple(field for field in attrs.fields(EdgeSettings) if field.name not in _OF_LIMITS.keys() | _OTHERS)
_RAREST_PING_SECONDS = 10.0  # the promise to readers is 15, and a ping may be late


def edge_settings_of(settings: Settings, before: Settings | None = None) -> EdgeSettings:
    """Rules that are remembered may still name the programs of `before`. Raises ConfigError."""
    agents = settings.agents if before is None else (*settings.agents, *before.agents)
    programs = frozenset(rule.command for agent in agents for rule in agent.guardrails if rule.kind == "command")
    of_limits: dict[str, Any] = {name: getattr(settings.limits, key) for name, key in _OF_LIMITS.items()}
    return EdgeSettings(
        **_own(settings.edge),
        **of_limits,
        public_url=settings.server.public_url if settings.server.port else None,
        organization_id=settings.organization_id,
        ping_seconds=min(settings.limits.ping_seconds, _RAREST_PING_SECONDS),
        token_lifetime_seconds=int(settings.limits.token_ttl_seconds),
        cancel_on_disconnect=settings.server.cancel_on_disconnect,
        guardrail_commands=programs,
    )


def _own(table: Table) -> dict[str, Any]:
    """The numbers of `[edge]`, by their names."""
    values: dict[str, Any] = {}
    for field in OWN:
        least, most = field.metadata[BOUNDS]
        read: Callable[..., Any] = table.integer if isinstance(field.default, int) else table.number
        values[field.name] = read(field.name, field.default, least=least, most=most)
    table.finish()
    return values
