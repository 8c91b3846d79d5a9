"""How a command reaches the gateway of this folder: its address, and a key that may be sent there.

Reads little, so that `lobu chat` starts fast. A key that lies in this folder is the key of this folder's gateway: it
is not sent to an address elsewhere that was given on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from supervisor.config.environment import read_environment
from supervisor.config.keys import LAST_CHAT_FILE, read_admin_key, read_gateway_url, read_small_file, replace_file
from supervisor.config.values import DEFAULT_HOST, DEFAULT_PORT, LOOPBACK_HOSTS, STATE_FOLDER


@attrs.frozen
class GatewayPlace:
    """`key` is None when there is none to be had; the server will say what it thinks of that."""

    url: str
    key: str | None = attrs.field(repr=False)


def find_gateway(
    given: str | None, data_dir: Path | None = None, environ: Mapping[str, str] | None = None
) -> GatewayPlace:
    """`given`, else where `lobu run` in this folder says that it listens, else the default. Raises ConfigError."""
    folder = data_dir or Path()
    local = read_gateway_url(folder)
    url = given or local or f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
    key = read_environment(os.environ if environ is None else environ, folder / ".env").admin_key
    if key is None and (url == local or _host(url) in LOOPBACK_HOSTS):
        key = read_admin_key(folder)
    return GatewayPlace(url, key)


def remember_chat(key: str, data_dir: Path | None = None) -> None:
    """Note the conversation for `lobu chat --continue`. Raises ConfigError."""
    replace_file((data_dir or Path()) / STATE_FOLDER / LAST_CHAT_FILE, key)


def last_chat(data_dir: Path | None = None) -> str | None:
    """The conversation that the last chat in this folder used."""
    return read_small_file((data_dir or Path()) / STATE_FOLDER / LAST_CHAT_FILE)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
