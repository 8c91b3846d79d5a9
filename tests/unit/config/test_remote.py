"""A worker type whose program is another machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.cli.main import run_cli
from supervisor.config.errors import ConfigError
from supervisor.config.load import load_settings
from supervisor.workers.types import WorkerType


def load(folder: Path, text: str) -> WorkerType:
    path = folder / "lobu.toml"
    path.write_text(f"[workers.gpu]\n{text}\n")
    return load_settings(path, data_dir=folder, environ={}).workers["gpu"]


def test_what_it_says_and_what_it_need_not_say(tmp_path: Path) -> None:
    assert load(tmp_path, "remote = true") == WorkerType("gpu", (), remote=True, reconnect_seconds=20.0)
    assert load(tmp_path, "remote = true\nreconnect_seconds = 0").reconnect_seconds == 0
    assert not load(tmp_path, 'remote = false\ncommand = ["sh"]').remote


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('remote = true\ncommand = ["sh"]', "`workers.gpu.command` does not go with remote = true"),
        ("remote = true\nwarm = 2", "`workers.gpu.warm` does not go with remote = true"),
        ("remote = 1", "`workers.gpu.remote` must be true or false"),
        ("remote = true\nreconnect_seconds = 601", "`workers.gpu.reconnect_seconds` must be from 0 to 600"),
        ("reconnect_seconds = 5", "`workers.gpu"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"lobu\.toml") as refused:
        load(tmp_path, text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--type", "gpu"], "this machine has no [workers.gpu] with a command"),
        (["--type", "gpu", "--", "no-such-program"], "the program 'no-such-program' is not there"),
        (["--type", "gpu", "--", "python"], "there is no key"),
        (["--type", "gpu", "--key-file", "none", "--", "python"], "the key cannot be read"),
    ],
)
def test_the_runner_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOBU_WORKER_KEY", raising=False)
    assert run_cli(["worker", "connect", "http://127.0.0.1:9", *words]) != 0
    assert said in capsys.readouterr().err
