"""Guardrails in lobu.toml: programs are found as workers' are, and what cannot be is refused by file, line and key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lobu_actors.conversation.policy import AgentPolicy
from supervisor.config.errors import ConfigError
from supervisor.config.load import load_settings
from supervisor.config.settings import Settings
from supervisor.edge_settings import edge_settings_of

AGENT = """\
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[[agents]]
id = "echo"
worker = "echo"
guardrails = [{rule}]
"""


def load(folder: Path, rule: str) -> Settings:
    (folder / "lobu.toml").write_text(AGENT.replace("{rule}", rule))
    return load_settings(folder / "lobu.toml", environ={})


def test_a_program_is_found_beside_the_file_and_known_to_the_edge(tmp_path: Path) -> None:
    check = tmp_path / "check.sh"
    check.write_text("#!/bin/sh\n")
    check.chmod(check.stat().st_mode | stat.S_IXUSR)
    rule = '{ kind = "command", command = ["./check.sh", "-x"], timeout_seconds = 2 }'
    settings = load(tmp_path, rule)
    [guardrail] = settings.agents[0].guardrails
    assert guardrail.command == (str(check), "-x")
    assert guardrail.timeout_seconds == 2
    assert edge_settings_of(settings).guardrail_commands == {(str(check), "-x")}
    [record] = settings.agent_records()
    assert AgentPolicy.from_json(record.policy).guardrails == (guardrail,)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('{ kind = "command", command = ["./none"] }', "lobu.toml:6: `agents[0].guardrails[0].command` names"),
        ('{ kind = "command" }', "lobu.toml:6: `agents[0].guardrails[0].command` is missing"),
        ('{ kind = "pattern", pattern = "(?=x)" }', "`agents[0].guardrails[0].pattern` is not a valid regular"),
        ('{ kind = "command", command = ["sh"], timeout_seconds = 61 }', "`agents[0].guardrails[0].timeout_seconds`"),
        ('{ kind = "pattern", pattern = "x", patern = "y" }', "did you mean `pattern`?"),
    ],
)
def test_what_cannot_be(tmp_path: Path, rule: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, rule)
    assert says in str(caught.value)


def test_limits_of_uploads_reach_the_edge(tmp_path: Path) -> None:
    (tmp_path / "lobu.toml").write_text(
        "[limits]\nupload_max_files = 2\nupload_file_max_bytes = 3\nupload_total_max_bytes = 4\n"
    )
    settings = edge_settings_of(load_settings(tmp_path / "lobu.toml", environ={}))
    assert (settings.upload_max_files, settings.upload_file_max_bytes, settings.upload_total_max_bytes) == (2, 3, 4)
