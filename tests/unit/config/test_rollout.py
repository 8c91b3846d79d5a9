"""How a release is rolled out, what decides it, and why a second host is refused: pure, and as the command shows it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lobu_actors.contract.states import Alone, HostState
from lobu_actors.store.membership_protocol import Rival
from lobu_actors.store.records import Host
from supervisor.cli.drain import find_host
from supervisor.cli.main import run_cli
from supervisor.cli.table import aligned
from supervisor.config.errors import ConfigError
from supervisor.rollout import Plan, Preconditions, plan, refusal

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("allowed", "files", "shared", "alone", "strategy"),
    [
        (False, False, False, Alone.NOT_ALLOWED, "recreate"),
        (False, True, True, Alone.NOT_ALLOWED, "recreate"),
        (True, False, False, None, "rolling"),
        (True, True, False, Alone.FILE_SESSIONS, "recreate"),
        (True, True, True, None, "rolling"),
    ],
)
def test_the_strategy(allowed: bool, files: bool, shared: bool, alone: Alone | None, strategy: str) -> None:
    found = Preconditions(allowed, files, shared)
    assert found.alone is alone
    made = plan(None, found)
    assert (made.strategy, made.decided_by, made.warning) == (strategy, "preconditions", None)
    recreate = plan("recreate", found)
    assert recreate == Plan("recreate", "override", "recreate was asked for")
    rolling = plan("rolling", found)
    assert (rolling.strategy, rolling.decided_by) == ("rolling", "override")
    assert (rolling.warning is None) == (alone is None), "an override does not lift a refusal"


@pytest.mark.parametrize(
    ("own", "others", "says"),
    [
        (Alone.NOT_ALLOWED, None, "LOBU_ALLOW_MULTI_HOST is not set here"),
        (None, Alone.NOT_ALLOWED, "it was started without LOBU_ALLOW_MULTI_HOST"),
        (Alone.FILE_SESSIONS, None, "LOBU_SESSION_STORE=file keeps this host's sessions on this host's own disk"),
        (None, Alone.FILE_SESSIONS, "LOBU_SESSION_STORE=file keeps its sessions on its own disk"),
        (Alone.NOT_ALLOWED, Alone.FILE_SESSIONS, "LOBU_ALLOW_MULTI_HOST is not set here"),
    ],
)
def test_a_refusal_is_one_sentence_with_name_and_time(own: Alone | None, others: Alone | None, says: str) -> None:
    sentence = refusal(own, Rival("0190f3a1-7b2c-7000", "web-1", 3600.0, 4.2, others), NOW)
    assert says in sentence
    assert "host web-1 (0190f3a1-7b2c) has been alive on this database since 2026-05-04 11:00:00 UTC" in sentence
    assert "its lease ends in 4 s" in sentence
    assert sentence.count(". ") == 0
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    ("variables", "words", "strategy", "decided_by"),
    [
        ({}, [], "recreate", "preconditions"),
        ({"LOBU_ALLOW_MULTI_HOST": "1"}, [], "rolling", "preconditions"),
        ({"LOBU_ALLOW_MULTI_HOST": "1", "LOBU_SESSION_STORE": "file"}, [], "recreate", "preconditions"),
        (
            {"LOBU_ALLOW_MULTI_HOST": "1", "LOBU_SESSION_STORE": "file", "LOBU_SHARED_SESSIONS": "1"},
            [],
            "rolling",
            "preconditions",
        ),
        ({"LOBU_ROLLOUT_STRATEGY": "rolling"}, [], "rolling", "LOBU_ROLLOUT_STRATEGY"),
        ({"LOBU_ROLLOUT_STRATEGY": "rolling"}, ["--strategy", "recreate"], "recreate", "--strategy"),
    ],
)
def test_the_command(
    variables: dict[str, str],
    words: list[str],
    strategy: str,
    decided_by: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (variables | {"DATABASE_URL": "postgresql://a@b/c"}).items():
        monkeypatch.setenv(name, value)
    assert run_cli(["rollout", "plan", *words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["strategy"], shown["decidedBy"]) == (strategy, decided_by)
    assert run_cli(["rollout", "plan", *words]) == 0
    text = capsys.readouterr().out
    assert f"strategy  {strategy}" in text
    assert (shown["because"] in text, "Warning" in text) == (True, shown["warning"] is not None)


def test_an_unknown_strategy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(["rollout", "plan", "--strategy", "sideways"]) == 2
    monkeypatch.setenv("LOBU_ROLLOUT_STRATEGY", "sideways")
    assert run_cli(["rollout", "plan"]) == 1
    assert "LOBU_ROLLOUT_STRATEGY must be `rolling` or `recreate`" in capsys.readouterr().err


def host(host_id: str, name: str, *, state: HostState = HostState.ACTIVE, left: float = 5.0) -> Host:
    return Host(host_id, name, None, "1", state, left)


HOSTS = [
    host("aa1", "web-1"),
    host("aa2", "web-2"),
    host("bb1", "web-2"),
    host("cc1", "old", left=-1.0),
    host("dd1", "dead", state=HostState.DEAD),
]


@pytest.mark.parametrize(("given", "found"), [("web-1", "aa1"), ("bb", "bb1"), ("aa2", "aa2"), (None, "aa2")])
def test_a_host_is_found_by_name_by_id_and_by_folder(given: str | None, found: str) -> None:
    assert find_host(HOSTS, given, "aa2").host_id == found


@pytest.mark.parametrize(
    ("given", "folder", "says"),
    [
        ("aa", None, "aa may be web-1 (aa1), web-2 (aa2); name one by its id"),
        ("web-2", None, "may be"),
        ("old", None, "no live host is called old; live are: web-1 (aa1)"),
        ("dead", None, "no live host"),
        (None, "cc1", "no live host runs in this folder"),
        (None, None, "no live host runs in this folder"),
    ],
)
def test_a_host_that_is_not_meant_clearly_is_refused(given: str | None, folder: str | None, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        find_host(HOSTS, given, folder)
    assert says in str(refused.value)


def test_columns_are_aligned() -> None:
    assert aligned([("NAME", "N"), ("a", "10"), ("bcdef", "1")], right=frozenset({1})) == [
        "  NAME    N",
        "  a      10",
        "  bcdef   1",
    ]
    assert aligned([]) == []
