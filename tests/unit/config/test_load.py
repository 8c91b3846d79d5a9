"""lobu.toml and the environment: what is read, and the one sentence for what cannot be."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lobu_actors.conversation.policy import AgentPolicy, Deadlines
from lobu_actors.store.database_url import EmbeddedDatabase, parse_database_url
from supervisor.config.errors import ConfigError
from supervisor.config.load import Overrides, load_settings
from supervisor.config.settings import Settings

SECRET = "s" * 32
EXAMPLE = """\
[server]
public_url = "http://127.0.0.1:8787"

[database]
url = "file:."

[organization]
id = "local"

[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
zygote = true
warm = 1
sandbox = "none"
memory_mb = 1024

[[agents]]
id = "echo"
worker = "echo"
default = true
model = "openai/gpt-5-mini"
settings = {}
deadlines = { startup_seconds = 10, first_output_seconds = 120, progress_seconds = 300, heartbeat_seconds = 15, \
tool_seconds = 600, turn_seconds = 1800, question_seconds = 86400 }
failure = { crash = "fail", timeout = "retry", host_lost = "retry", max_attempts = 2 }
guardrails = [ { kind = "pattern", pattern = "(?i)ignore previous", message = "Not allowed." } ]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str | None = None, environ: dict[str, str] | None = None, **overrides: object) -> Settings:
    if text is not None:
        Path("lobu.toml").write_text(text)
    return load_settings(environ=environ or {}, overrides=Overrides(**overrides))  # type: ignore[arg-type]


def refused(text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_example_of_the_contract(folder: Path) -> None:
    settings = load(EXAMPLE)
    assert settings.workers["echo"].command == (sys.executable, "-m", "lobu_actors.agents.echo")
    assert settings.workers["echo"].memory_mb == 1024
    agent = settings.agents[0]
    assert agent.deadlines == Deadlines()
    assert agent.failure.max_attempts == 2
    assert agent.guardrails[0].pattern == "(?i)ignore previous"
    assert settings.database.url == f"file:{folder}"
    assert settings.config_file == folder / "lobu.toml"
    record = agent.record("local")
    assert record.is_default
    assert record.model == "openai/gpt-5-mini"
    policy = AgentPolicy.from_json(record.policy)
    assert (policy.deadlines, policy.failure, policy.guardrails) == (agent.deadlines, agent.failure, agent.guardrails)


def test_built_in_without_a_file(folder: Path) -> None:
    settings = load()
    assert settings.config_file is None
    assert settings.organization_id == "local"
    assert list(settings.workers) == ["echo"]
    assert [(agent.id, agent.default) for agent in settings.agents] == [("echo", True)]
    assert settings.state_dir == folder / ".lobu"
    assert settings.limits.max_workers == 256
    assert not list(folder.iterdir())


def test_built_in_stands_beside_other_sections(folder: Path) -> None:
    assert list(load("[server]\nport = 9000\n").workers) == ["echo"]


def test_named_file_must_exist(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: there is no such file; `lobu init` writes one"):
        load_settings(Path("nowhere.toml"), environ={})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "zygote = true",
            "zygot = true",
            "lobu.toml:12: `workers.echo.zygot` is not a known key; did you mean `zygote`?",
        ),
        (
            "command =",
            "comand =",
            "lobu.toml:11: `workers.echo.comand` is not a known key; did you mean `command`?",
        ),
        ("zygote = true", "xyz = 1", "lobu.toml:12: `workers.echo.xyz` is not a known key; remove it (known here: "),
        ("[organization]", "[organisation]", "lobu.toml:7: `organisation` is not a known key; did you mean `organi"),
        ("zygote = true", 'zygote = "yes"', "lobu.toml:12: `workers.echo.zygote` must be true or false"),
        (
            'sandbox = "none"',
            'sandbox = "bwrap"',
            'lobu.toml:12: `workers.echo.zygote` does not go with sandbox = "bwrap": a fork shares what its zygote',
        ),
        ("warm = 1", "warm = -1", "lobu.toml:13: `workers.echo.warm` must be from 0 to 64, not -1"),
        ("warm = 1", "warm = true", "lobu.toml:13: `workers.echo.warm` must be a whole number, not true or false"),
        ('sandbox = "none"', 'sandbox = "jail"', "lobu.toml:14: `workers.echo.sandbox` must be one of none, bwrap"),
        ('["python", ', '["no-such-program", ', "lobu.toml:11: `workers.echo.command` names the program 'no-such-prog"),
        (
            '["python", ',
            '["./nothing", ',
            "lobu.toml:11: `workers.echo.command` names the program './nothing', and the",
        ),
        (
            '["python", ',
            '["./lobu.toml", ',
            "lobu.toml:11: `workers.echo.command` names the program './lobu.toml', which",
        ),
        ('["python", ', "[1, ", "lobu.toml:11: `workers.echo.command[0]` must be a text in quotes"),
        (
            'worker = "echo"',
            'worker = "ech"',
            "lobu.toml:19: `agents[0].worker` is 'ech', which no [workers.ech] table",
        ),
        ('worker = "echo"', "", "lobu.toml:17: `agents[0]` has no worker"),
        ('id = "echo"', 'id = "a b"', "lobu.toml:18: `agents[0].id` must be letters"),
        (
            "turn_seconds = 1800",
            "turn_secs = 1",
            "lobu.toml:23: `agents[0].deadlines.turn_secs` is not a known key; did",
        ),
        ("turn_seconds = 1800", "turn_seconds = nan", "lobu.toml:23: `agents[0].deadlines.turn_seconds` must be more"),
        (
            "turn_seconds = 1800",
            f"turn_seconds = 1{'0' * 400}",
            "lobu.toml:23: `agents[0].deadlines.turn_seconds` must",
        ),
        ('crash = "fail"', 'crash = "ignore"', 'lobu.toml:24: `agents[0].failure.crash` must be "fail" or "retry"'),
        ("max_attempts = 2", "max_attempts = 0", "lobu.toml:24: `agents[0].failure.max_attempts` must be a whole numb"),
        ('"(?i)ignore previous"', '"("', "lobu.toml:25: `agents[0].guardrails[0].pattern` is not a valid regular exp"),
        ('kind = "pattern", ', "", "lobu.toml:25: `agents[0].guardrails[0].kind` is missing"),
        (
            "settings = {}",
            "settings = { at = 2026-01-01 }",
            "lobu.toml:22: `agents[0].settings.at` must be JSON, not a d",
        ),
        (
            "settings = {}",
            "settings = { x = [inf] }",
            "lobu.toml:22: `agents[0].settings.x[0]` must be a finite number",
        ),
        ('url = "file:."', 'url = ""', "lobu.toml:5: `database.url` must not be empty"),
        ("http://127.0.0.1:8787", "ftp://x", "lobu.toml:2: `server.public_url` must be like http://host:8787"),
        ("http://127.0.0.1:8787", "http://x:99999", "lobu.toml:2: `server.public_url` must be like http://host:8787"),
        ("[database]", "[database", "lobu.toml:4: this is not valid TOML ("),
    ],
)
def test_refusals_name_file_line_and_key(folder: Path, old: str, new: str, message: str) -> None:
    assert old in EXAMPLE
    assert refused(EXAMPLE.replace(old, new, 1)).startswith(message)


def test_two_defaults_and_two_ids(folder: Path) -> None:
    second = '\n[[agents]]\nid = "two"\nworker = "echo"\ndefault = true\n'
    message = refused(EXAMPLE + second)
    assert message.startswith("lobu.toml:30: `agents[1].default` is true for a second agent ('echo' is the default")
    message = refused(EXAMPLE + second.replace("two", "echo").replace("true", "false"))
    assert message.startswith("lobu.toml:28: `agents[1].id` is 'echo', which another agent has already")


def agent(name: str, *lines: str) -> str:
    return "\n".join(["[[agents]]", f'id = "{name}"', 'worker = "echo"', *lines, ""])


WORKER = '[workers.echo]\ncommand = ["python", "-m", "lobu_actors.agents.echo"]\n'


@pytest.mark.parametrize(
    ("agents", "default"),
    [
        ([agent("a"), agent("b")], ["a"]),
        ([agent("a"), agent("b", "default = true")], ["b"]),
        ([agent("a", 'owner = "ann"'), agent("b"), agent("c")], ["b"]),
        ([agent("a", 'owner = "ann"')], []),
        ([], []),
    ],
)
def test_one_agent_is_the_default(folder: Path, agents: list[str], default: list[str]) -> None:
    settings = load(WORKER + "".join(agents))
    assert [record.agent_id for record in settings.agent_records() if record.is_default] == default


def test_an_owner(folder: Path) -> None:
    settings = load(WORKER + agent("a") + agent("hers", 'owner = "ann"'))
    assert [record.owner_user_id for record in settings.agent_records()] == [None, "ann"]
    message = refused(WORKER + agent("a", 'owner = "ann"', "default = true"))
    assert message.startswith("lobu.toml:7: `agents[0].default` is true for an agent with an owner")
    assert refused(WORKER + agent("a", 'owner = "a b"')).startswith("lobu.toml:6: `agents[0].owner` must be letters")


@pytest.mark.parametrize(
    "text", ["agents = 1\n", "workers = []\n", "agents = [1]\n", "server = 1\n", "[workers]\nx = 1\n"]
)
def test_wrong_shapes(folder: Path, text: str) -> None:
    assert "must be" in refused(text)


def test_limits(folder: Path) -> None:
    settings = load("[limits]\nmax_workers = 3\nhost_ttl_seconds = 9\n")
    assert settings.limits.max_workers == 3
    assert settings.limits.host_ttl_seconds == 9
    assert settings.limits.host_retention_days == 7
    assert load("[limits]\nhost_retention_days = 0.5\n").limits.host_retention_days == 0.5
    assert refused("[limits]\nhost_ttl_seconds = 2\n").startswith("lobu.toml:2: `limits.host_ttl_seconds` must leave")
    assert refused("[limits]\nmax_workers = 0\n").startswith("lobu.toml:2: `limits.max_workers` must be from 1 to")
    assert refused("[limits]\nworker_idle_seconds = 0\n").startswith(
        "lobu.toml:2: `limits.worker_idle_seconds` must be"
    )
    assert (settings.limits.workspace_max_bytes, settings.limits.workspace_max_files) == (2 * 1024**3, 100_000)
    assert refused("[limits]\nworkspace_max_bytes = 1000000\n").startswith(
        "lobu.toml:2: `limits.workspace_max_bytes` must leave room for what a turn begins with"
    )
    assert refused("[limits]\nworkspace_max_files = 99\n").startswith(
        "lobu.toml:2: `limits.workspace_max_files` must be from 100 to"
    )
    assert "did you mean `max_workers`?" in refused("[limits]\nmax_worker = 1\n")


def test_command_line_wins_over_environment_over_file(folder: Path) -> None:
    text = '[database]\nurl = "postgres://file/x"\n'
    assert load(text).database.url == "postgres://file/x"
    environ = {"DATABASE_URL": "postgres://env/x"}
    assert load(text, environ).database.url == "postgres://env/x"
    assert load(text, environ, database_url="data").database.url == f"file:{folder}/data"


def test_port_moves_a_loopback_public_url(folder: Path) -> None:
    assert load(EXAMPLE, port=9000).server.public_url == "http://127.0.0.1:9000"
    assert load(host="0.0.0.0", port=80).server.public_url == "http://127.0.0.1:80"
    public = '[server]\npublic_url = "https://lobu.example/"\n'
    assert load(public, port=9000).server.public_url == "https://lobu.example"


def test_environment(folder: Path) -> None:
    environ = {
        "LOBU_ADMIN_KEY": "lobu_x",
        "LOBU_JWT_KEYS": f"a:{SECRET}, b:{SECRET}",
        "LOBU_SESSION_STORE": "file",
        "LOBU_LOG": "json",
        "LOBU_ALLOW_MULTI_HOST": "1",
        "WORKER_ENV_OPENAI_API_KEY": "sk-hidden",
        "WORKER_ENV_LOBU_SESSION_STORE": "file",
        "UNRELATED": "x",
    }
    settings = load(environ=environ)
    assert [key.kid for key in settings.jwt_keys] == ["a", "b"]
    assert settings.admin_key == "lobu_x"
    assert (settings.session_store, settings.log_format, settings.allow_multi_host) == ("file", "json", True)
    assert dict(settings.worker_env) == {"OPENAI_API_KEY": "sk-hidden"}
    shown = repr(settings)
    assert "sk-hidden" not in shown
    assert SECRET not in shown
    assert "lobu_x" not in shown


def test_dotenv_lies_beneath_the_environment(folder: Path) -> None:
    (folder / ".env").write_text(
        "# x\nexport LOBU_LOG=json\nDATABASE_URL='postgres://dotenv/x' \nLOBU_ADMIN_KEY=lobu_k # c\n"
    )
    settings = load(environ={"LOBU_LOG": "text"})
    assert settings.log_format == "text"
    assert settings.database.url == "postgres://dotenv/x"
    assert settings.admin_key == "lobu_k"
    (folder / ".env").write_text("\nnonsense\n")
    assert ".env:2: this line is not NAME=value" in refused("")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOBU_JWT_KEYS", "nocolon"),
        ("LOBU_JWT_KEYS", "a:short"),
        ("LOBU_JWT_KEYS", f"a:{SECRET},a:{SECRET}"),
        ("LOBU_ADMIN_KEY", "lobu_two words"),
        ("LOBU_ADMIN_KEY", "without-the-prefix"),
        ("LOBU_SESSION_STORE", "s3"),
        ("LOBU_LOG", "xml"),
        ("LOBU_ALLOW_MULTI_HOST", "maybe"),
    ],
)
def test_bad_variables_are_named_and_never_quoted(folder: Path, name: str, value: str) -> None:
    message = refused("", {name: value})
    assert message.startswith(f"the environment: {name} ")
    assert value not in message


def test_relative_program_is_found_beside_the_file(folder: Path) -> None:
    program = folder / "worker.sh"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    settings = load('[workers.x]\ncommand = ["./worker.sh", "a"]\n')
    assert settings.workers["x"].command == (str(program), "a")
    assert os.path.isabs(settings.workers["x"].command[0])
    assert settings.agents == ()


def test_database_urls_that_cannot_be_used(folder: Path) -> None:
    assert refused('[database]\nurl = "mysql://x:secret@y"\n').startswith(
        "lobu.toml:2: `database.url` cannot be used: "
    )
    message = refused("", {"DATABASE_URL": "mysql://x:secret@y"})
    assert message.startswith("the environment: DATABASE_URL cannot be used: ")
    assert "secret" not in message


def test_odd_folder_names_survive(folder: Path) -> None:
    odd = folder / "50% #done"
    odd.mkdir()
    settings = load_settings(environ={}, data_dir=odd)
    assert parse_database_url(settings.database.url, Path("/elsewhere")) == EmbeddedDatabase(odd)
