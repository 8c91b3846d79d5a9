"""The addresses that answers carry. Must not know what is behind them."""

from __future__ import annotations

import re
from urllib.parse import quote

from edge.request import opening
from edge.settings import EdgeSettings

ALIAS_PREFIX = "/lobu"
_PLAIN = re.compile(r"[A-Za-z0-9._~-]+")  # as ids mostly are; nothing of it would be quoted
_HOST = re.compile(r"[A-Za-z0-9.\-_]+(?::\d{1,5})?\Z|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?\Z")


def conversation_url(settings: EdgeSettings, key: str, tail: str = "") -> str:
    """Under the configured public address, else under the one that this request was sent to.

    A Host that is no host name gives a path alone: nothing of it is repeated.
    """
    asked = opening()
    prefix = ALIAS_PREFIX if asked.path.startswith(ALIAS_PREFIX + "/") else ""
    path = f"{prefix}/api/v1/agents/{_quoted(key, '@:')}{tail}"
    if settings.public_url is not None:
        return settings.public_url.rstrip("/").removesuffix(prefix) + path
    host = asked.headers.get("Host", "")
    scheme = {"ws": "http", "wss": "https"}.get(asked.scheme, asked.scheme)
    return f"{scheme}://{host}{path}" if _HOST.match(host) else path


def agent_settings_url(settings: EdgeSettings, agent_id: str) -> str:
    """Where a person sets up an agent; a path alone while no public address is configured.

    It is stored and read by others, so nothing of the request's Host goes into it.
    """
    return f"{(settings.public_url or '').rstrip('/')}/ops#agent={_quoted(agent_id, '@:')}"


def query_value(text: str) -> str:
    return _quoted(text, "")


def _quoted(text: str, safe: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=safe)
