"""docs/agents.md says what is so: its lobu.toml is read, and its numbers are the defaults."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from lobu_actors.agents import mcp_servers as servers
from lobu_actors.agents.openai import settings

PAGE = (Path(__file__).parents[3] / "docs" / "agents.md").read_text()


def block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[0]


def test_the_settings_are_all_there_with_their_defaults() -> None:
    (agent,) = tomllib.loads(block("toml"))["agents"]
    found, defaults = vars(settings.read(agent["settings"])), vars(settings.Settings())
    assert set(agent["settings"]) == set(defaults)
    assert {name: value for name, value in found.items() if isinstance(value, int | float)} == {
        name: value for name, value in defaults.items() if isinstance(value, int | float)
    }


def test_the_file_of_servers_has_what_the_agent_wants() -> None:
    (agent,) = tomllib.loads(block("toml"))["agents"]
    assert list(servers.parse(block("json"))) == agent["settings"]["mcp"]
