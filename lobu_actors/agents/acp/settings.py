"""What an agent's `settings` say to an agent of the Agent Client Protocol. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lobu_actors.agents.settings import INVALID
from lobu_actors.agents.settings import read as read_settings
from lobu_actors.worker import Fail


@dataclass(frozen=True)
class Settings:
    """`settings` of an agent whose worker is `acp`."""

    mode: str = ""  # a mode of the agent's own, as `plan`; else the one that it begins with
    auth_method: str = ""  # one of the ways to log in that the agent offers; else none is asked for
    mcp: list[str] | None = None  # which MCP servers the agent is given; None: all of its worker type
    failure_pattern: str = (
        ""  # a regular expression: a reply that ends with it is none, but the agent's word for a failure
    )
    start_seconds: float = 60.0  # for the agent to come up and open the session


def read(values: Mapping[str, Any]) -> Settings:
    """Raises Fail."""
    found = read_settings(Settings, values)
    try:
        re.compile(found.failure_pattern)
    except re.error as error:
        raise Fail(INVALID, f"The agent's setting `failure_pattern` is no regular expression: {error}.") from None
    return found
