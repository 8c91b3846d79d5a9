"""The command table, help, init, and errors as one sentence each."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from lobu_actors.runtime.errors import RestartIntensityExceeded
from lobu_actors.store.errors import EmbeddedServerError, SchemaMismatch, StoreUnavailable
from supervisor.cli.failures import sentences
from supervisor.cli.main import cli, run_cli
from supervisor.cli.run import called
from supervisor.config.errors import ConfigError
from supervisor.config.load import load_settings

Gateway = Any  # the fixture's class; tests/ is no package
OURS = ["init", "chat", "status", "history", "cancel", "token", "migrate"]


def test_help_lists_commands_without_importing_them() -> None:
    code = (
        "import sys; from supervisor.cli.main import run_cli; code = run_cli(['--help']); "
        "assert not {'trio', 'httpx', 'attrs', 'supervisor.cli.chat'} & set(sys.modules), 'too much was imported'; "
        "sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    for name in OURS:
        assert f"  {name} " in result.stdout


@pytest.mark.parametrize(
    "words", [[name] for name in OURS] + [["token", "create"], ["token", "list"], ["token", "revoke"]]
)
def test_every_command_has_help_with_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([*words, "--help"]) == 0
    assert "Example" in capsys.readouterr().out


def test_every_listed_command_loads() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        assert cli.get_command(context, name) is not None


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["nothing"]) == 2
    assert "No such command 'nothing'" in capsys.readouterr().err


def test_the_server_says_how_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "the bin" / "lobu"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "run"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert called() == f"'{program}'"
    monkeypatch.setenv("PATH", str(program.parent))
    assert called() == "lobu"
    monkeypatch.setattr(sys, "argv", ["main.py", "run"])
    assert called() == "lobu"


def test_init_writes_what_can_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["init", str(tmp_path / "new"), "-y"]) == 0
    assert f"Start it with:  cd {tmp_path}/new && lobu run\n" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "new")
    settings = load_settings(environ={})
    assert settings.database.url == f"file:{tmp_path}/new"
    assert [agent.id for agent in settings.agents] == ["echo"]
    assert (tmp_path / "new" / ".env").stat().st_mode & 0o777 == 0o600


def test_init_refuses_to_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_text("KEEP=1\n")
    assert run_cli(["init", str(tmp_path), "-y"]) == 1
    assert "exist already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_init_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("external\npostgres://u:p%23 w@h/d\n"))
    assert run_cli(["init"]) == 0
    assert load_settings(environ={}).database.url == "postgres://u:p%23 w@h/d"


def test_init_refuses_what_is_no_postgres(tmp_path: Path) -> None:
    assert run_cli(["init", str(tmp_path), "--database-url", "mysql://x"]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["status"], ["token", "list"], ["history", "k"], ["migrate", "--check"]])
def test_no_database_yet(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert run_cli(words) == 1
    assert "there is no database in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_bad_configuration_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lobu.toml").write_text("[servr]\n")
    assert run_cli(["status"]) == 1
    assert capsys.readouterr().err == "lobu: lobu.toml:1: `servr` is not a known key; did you mean `server`?\n"


@pytest.mark.parametrize(
    ("stage", "said"), [("accepted", "ends with `cancelled`"), ("nothing-to-cancel", "Nothing to cancel")]
)
def test_cancel_says_what_comes_of_it(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], stage: str, said: str
) -> None:
    gateway.stage = stage
    assert run_cli(["cancel", "echo_u_o"]) == 0
    assert said in capsys.readouterr().out


def test_a_part_that_was_given_up_is_told_by_what_it_failed_with() -> None:
    full = EmbeddedServerError("the database ended with status 1; its log is /x/postgres.log")
    assert sentences(RestartIntensityExceeded("database", full)) == [
        "`database` failed again and again: the database ended with status 1; its log is /x/postgres.log"
    ]


def test_sentences_of_a_group_and_without_credentials() -> None:
    group = ExceptionGroup(
        "x",
        [
            StoreUnavailable("postgres://u:hunter22@h: no\nroute"),
            ExceptionGroup("y", [ConfigError("bad."), SchemaMismatch("run `lobu migrate`")]),
            ConfigError("bad."),
        ],
    )
    told = sentences(group)
    assert told[1:] == ["bad.", "run `lobu migrate`"]
    assert told[0].startswith("the database cannot be reached (postgres://u:[hidden]@h: no route)")
    assert sentences(KeyError("x"))[0].startswith("internal error, KeyError: 'x'; run it as `lobu --debug")
