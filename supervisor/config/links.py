"""The `[links]` table of lobu.toml: where other hosts link to this one."""

from __future__ import annotations

from urllib.parse import urlsplit

from supervisor.config.settings import LinkSettings
from supervisor.config.table import Table
from supervisor.config.values import DEFAULT_HOST

_ANY_ADDRESS = ("0.0.0.0", "::")


def read_links(table: Table, *, allow_multi_host: bool) -> LinkSettings:
    """With several hosts allowed links are on; where other hosts are on other machines, `listen` says so."""
    listen, advertise = table.text("listen"), table.text("advertise")
    table.finish()
    if not allow_multi_host:
        if listen is not None or advertise is not None:
            table.fail(None, "is for several hosts on one database; set LOBU_ALLOW_MULTI_HOST=1 or remove it")
        return LinkSettings()
    host, port = (DEFAULT_HOST, 0) if listen is None else _address(table, listen)
    if advertise is not None:
        _check_advertised(table, advertise)
    elif host in _ANY_ADDRESS:
        table.fail("listen", 'names every address; say which one others reach, like advertise = "ws://10.0.0.1:7001"')
    return LinkSettings(host, port, advertise)


def _address(table: Table, listen: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.path or parts.query or parts.username is not None:
        table.fail("listen", 'must be an address and a port, like "10.0.0.1:7001" (port 0: any free one)')
    return host, port


def _check_advertised(table: Table, url: str) -> None:
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("ws", "wss") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fit = False
    if not fit or parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        table.fail("advertise", 'must be a ws or wss address without a path, like "ws://10.0.0.1:7001"')
