"""The keys of a worker type that bound its workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.config.errors import ConfigError
from supervisor.config.load import load_settings
from supervisor.sandbox.destinations import Destination
from supervisor.workers.types import WorkerType

TYPE = '[workers.w]\ncommand = ["sh"]\n'


def load(folder: Path, text: str, before: str = "") -> WorkerType:
    path = folder / "lobu.toml"
    path.write_text(f"{before}{TYPE}{text}\n")
    return load_settings(path, data_dir=folder, environ={}).workers["w"]


def test_defaults_bound_every_worker(tmp_path: Path) -> None:
    found = load(tmp_path, "")
    assert (found.sandbox, found.own_user, found.has_network) == ("none", None, False)
    assert found.limits == {
        "RLIMIT_DATA": 4 << 30,
        "RLIMIT_NOFILE": 4096,
        "RLIMIT_FSIZE": 4 << 30,
        "RLIMIT_CORE": 0,
    }
    assert found.processes == 512


def test_everything_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    text = """
memory_mb = 100
cpu_seconds = 7
open_files = 50
processes = 9
file_size_mb = 3
temporary_mb = 20
own_user = true
sandbox = "bwrap"
readable = ["models", "/usr/share"]
network = ["dispatcher", "api.example.com:443", "*.example.org:80"]
private_network = ["db.internal:5432"]
"""
    found = load(tmp_path, text)
    assert found.limits["RLIMIT_CPU"] == 7
    assert (found.memory_mb, found.open_files, found.processes, found.file_size_mb) == (100, 50, 9, 3)
    assert (found.temporary_mb, found.own_user, found.dispatcher) == (20, True, True)
    assert found.readable == (str(tmp_path / "models"), "/usr/share")
    assert found.network == (
        Destination("api.example.com", 443),
        Destination("*.example.org", 80),
        Destination("db.internal", 5432, private=True),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory_mb = 1", "`workers.w.memory_mb` must be from 16 to 1048576, not 1"),
        ("cpu_seconds = 0", "`workers.w.cpu_seconds` must be from 1 to"),
        ("open_files = 3", "`workers.w.open_files` must be from 16 to"),
        ("processes = 0", "`workers.w.processes` must be from 1 to"),
        ("file_size_mb = 0.5", "`workers.w.file_size_mb` must be a whole number, not a number"),
        ("temporary_mb = -1", "`workers.w.temporary_mb` must be from 1 to"),
        ('own_user = "yes"', "`workers.w.own_user` must be true or false"),
        ('network = ["a.test:1"]', "`workers.w.network` is a list for a sandbox, and this worker has none"),
        ('readable = ["/usr"]', "`workers.w.readable` is a list for a sandbox, and this worker has none"),
        ('sandbox = "bwrap"\nnetwork = "a.test:1"', "`workers.w.network` must be a list of texts"),
        ('sandbox = "bwrap"\nnetwork = ["a.test"]', "`workers.w.network` has the entry 'a.test': it must be a host, a"),
        ('sandbox = "bwrap"\nnetwork = ["0x7f.1:1"]', "`workers.w.network` has the entry '0x7f.1:1': its host is nei"),
        ('sandbox = "bwrap"\nprivate_network = ["*:1"]', "`workers.w.private_network` has the entry '*:1': "),
        (
            'sandbox = "bwrap"\nreadable = ["/nowhere/at"]',
            "`workers.w.readable` names '/nowhere/at', and there is no such",
        ),
        ('sandbox = "bwrap"\nreadable = ["/"]', "`workers.w.readable` must not name the root folder"),
        ('sandbox = "bwrap"\nzygote = true', "`workers.w.zygote` does not go with sandbox"),
        ('sandbox = "bwrap"\nwarm = 1', "`workers.w.warm` must be 0 with a sandbox"),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_there_are_at_least_as_many_uids_as_workers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fewer uids for workers"):
        load(tmp_path, "", "[limits]\nworker_uid_count = 10\n")
    with pytest.raises(ConfigError, match=r"worker_uid_first` must be from 10000"):
        load(tmp_path, "", "[limits]\nworker_uid_first = 0\n")


def test_a_missing_bwrap_is_no_matter_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other types of the same file must work; the supervisor says so for this one when it starts."""
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert load(tmp_path, 'sandbox = "bwrap"').sandbox == "bwrap"
