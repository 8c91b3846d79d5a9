"""What of a changed configuration is taken up, and what is said to need a restart."""

from __future__ import annotations

from pathlib import Path

import attrs

from supervisor.config.load import load_settings
from supervisor.config.reload import RELOADED_LIMITS, change_of, changed_agents
from supervisor.config.settings import Limits, Settings

FILE = """
[workers.echo]
command = ["python"]
[workers.other]
command = ["python", "-c", "1"]
[[agents]]
id = "a"
worker = "echo"
[[agents]]
id = "b"
worker = "other"
"""


def load(folder: Path, text: str, **environ: str) -> Settings:
    (folder / "lobu.toml").write_text(text)
    return load_settings(folder / "lobu.toml", data_dir=folder, environ=environ)


def test_nothing_changed(tmp_path: Path) -> None:
    change = change_of(load(tmp_path, FILE), load(tmp_path, "# a remark\n" + FILE))
    assert (change.taken, change.needs_restart) == ((), ())


def test_what_is_taken_and_what_is_named(tmp_path: Path) -> None:
    before = load(tmp_path, FILE)
    text = FILE.replace('id = "b"', 'id = "c"') + "[limits]\nrequest_burst = 9\nmax_workers = 7\n[edge]\nbacklog = 9\n"
    change = change_of(before, load(tmp_path, text, LOBU_SESSION_STORE="file", WORKER_ENV_A="1"))
    assert change.taken == ("agents", "WORKER_ENV_*", "limits.request_burst")
    assert change.needs_restart == ("LOBU_SESSION_STORE", "limits.max_workers", "edge.backlog")
    assert [agent.id for agent in change.settings.agents] == ["a", "c"]
    assert change.settings.limits == attrs.evolve(before.limits, request_burst=9)
    assert change.settings.session_store == "snapshot"
    again = change_of(change.settings, load(tmp_path, text, LOBU_SESSION_STORE="file", WORKER_ENV_A="1"))
    assert (again.taken, again.needs_restart) == ((), change.needs_restart), "it is still not in force"


def test_agents_of_a_changed_worker_type_have_changed(tmp_path: Path) -> None:
    before = load(tmp_path, FILE)
    assert changed_agents(before, load(tmp_path, FILE.replace('"1"', '"2"'))) == {"b"}
    assert changed_agents(before, load(tmp_path, FILE + 'model = "m"\n')) == {"b"}
    assert changed_agents(before, load(tmp_path, FILE.replace('id = "b"', 'id = "c"'))) == {"b", "c"}


def test_reloaded_limits_are_limits() -> None:
    assert {field.name for field in attrs.fields(Limits)} >= RELOADED_LIMITS
