"""Small values that settings are made of, apart from them so that `lobu chat` need not import all of the settings."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import attrs

SessionStore = Literal["snapshot", "file"]
LogFormat = Literal["text", "json"]
RolloutStrategy = Literal["rolling", "recreate"]

STATE_FOLDER = ".lobu"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8787
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


@attrs.frozen
class JwtKey:
    """A signing key: the first one signs, all of them verify."""

    kid: str
    secret: str = attrs.field(repr=False)


def is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
