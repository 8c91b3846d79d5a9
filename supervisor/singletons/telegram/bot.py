"""A Telegram bot as it is configured. Owns the form of a token; knows nothing of the network."""

from __future__ import annotations

import re

import attrs

DEFAULT_API_URL = "https://api.telegram.org"
MAX_POLL_SECONDS = 50
_TOKEN = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{1,200}\Z")


def is_token(text: str) -> bool:
    return _TOKEN.match(text) is not None


@attrs.frozen
class Bot:
    """`token` is empty when the variable `token_env` is not set. `allowed_chats` None: whoever finds the bot."""

    token: str = attrs.field(repr=False)
    token_env: str
    agent_id: str
    allowed_chats: frozenset[int] | None
    api_url: str = DEFAULT_API_URL
    poll_seconds: int = MAX_POLL_SECONDS

    @property
    def id(self) -> int:
        """The bot's user id, which begins its token."""
        return int(self.token.partition(":")[0])
