"""docs/configuration.md names each key of lobu.toml, with its default, and each variable of the environment."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

from lobu_actors.conversation.policy import Guardrail
from lobu_actors.store import driver
from supervisor.config.errors import ConfigError
from supervisor.config.load import load_settings
from supervisor.config.settings import Limits, LinkSettings, ServerSettings, Settings, TelemetrySettings
from supervisor.edge_settings import edge_settings_of
from supervisor.workers.types import WorkerType

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "configuration.md").read_text()
BLOCK = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
# As one has it who takes out each `# ` that stands before a key.
FULL = re.sub(r"^# (?=\w+ = )", "", BLOCK, flags=re.MULTILINE)
TABLES = tomllib.loads(FULL)
SHORTEST = """
[workers.mine]
command = ["python"]
[[agents]]
id = "mine"
worker = "mine"
[[watchers]]
id = "morning-report"
cron = "0 9 * * MON-FRI"
content = "What happened since yesterday?"
[[telegram]]
token_env = "TELEGRAM_TOKEN"
allowed_chats = [123456789]
"""


def load(folder: Path, text: str, **environ: str) -> Settings:
    (folder / "lobu.toml").write_text(text)
    settings = load_settings(folder / "lobu.toml", environ=environ)
    edge_settings_of(settings)
    return settings


HEADERS = set(re.findall(r"^\[.*?\]+", BLOCK, re.MULTILINE)) - {"[workers.elsewhere]"}  # refuses any key but its own


@pytest.mark.parametrize("header", sorted(HEADERS))
def test_every_key_is_there(tmp_path: Path, header: str) -> None:
    with pytest.raises(ConfigError, match="xyzzy` is not a known key") as refused:
        load(tmp_path, BLOCK.replace(header, f"{header}\nxyzzy = 1", 1))
    known = re.findall(r"\w+", str(refused.value).split("known here: ")[1])
    table: Any = TABLES
    for name in header.strip("[]").split("."):
        table = table[name][0] if isinstance(table[name], list) else table[name]
    if header == "[workers.mine]":
        table |= {"remote": True}
    assert set(known) == set(table)


def test_values_are_the_defaults(tmp_path: Path) -> None:
    settings, shortest = load(tmp_path, BLOCK), load(tmp_path, SHORTEST)
    assert (settings.limits, settings.server) == (Limits(), ServerSettings())
    assert edge_settings_of(settings) == edge_settings_of(shortest)
    assert (settings.telemetry, settings.links) == (TelemetrySettings(), LinkSettings())
    assert (settings.watchers, settings.telegram) == (shortest.watchers, shortest.telegram)
    (agent,), (plain,) = settings.agents, shortest.agents
    assert attrs.evolve(agent, guardrails=()) == plain
    assert agent.guardrails == (Guardrail("pattern", agent.guardrails[0].pattern),)
    mine, elsewhere = settings.workers["mine"], settings.workers["elsewhere"]
    assert (mine, elsewhere) == (WorkerType("mine", mine.command), WorkerType("elsewhere", (), remote=True))


def test_what_is_behind_a_hash_is_taken(tmp_path: Path) -> None:
    """But for what goes with a sandbox or another kind of guardrail, or names what this machine lacks."""
    sole = r'^(command = \["\./check"\]|default|private_network|network|readable|agent) ?.*$'
    text = re.sub(sole, "", FULL, flags=re.MULTILINE)
    everybodys = '[[agents]]\nid = "all"\nworker = "mine"\n'
    settings = load(tmp_path, text.replace("[[agents]]", everybodys + "[[agents]]", 1), LOBU_ALLOW_MULTI_HOST="1")
    assert settings.links.advertise == "ws://10.0.0.1:7001"
    assert (settings.telemetry.metrics_port, settings.agents[1].owner) == (9464, "ann")


def test_what_a_connection_to_the_database_has_by_default() -> None:
    said = dict(TABLES["database"])
    assert said.pop("url") == "file:."
    defaults = {
        "keepalive_idle_seconds": driver._DEFAULTS["keepalives_idle"],
        "keepalive_interval_seconds": driver._DEFAULTS["keepalives_interval"],
        "keepalive_count": driver._DEFAULTS["keepalives_count"],
        "user_timeout_seconds": int(driver._DEFAULTS["tcp_user_timeout"]) // 1000,
    }
    assert said == defaults


def test_every_variable_is_there() -> None:
    source = (ROOT / "supervisor" / "config" / "environment.py").read_text()
    assert set(re.findall(r'variables\.get\("(\w+)"', source)) <= set(re.findall(r"`(\w+)`", PAGE))
