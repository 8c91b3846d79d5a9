"""The catalogue in docs/telemetry.md is the program's: every event and metric stands there as it is, and none else."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict

import pytest
from prometheus_client.metrics import MetricWrapperBase

import edge.metrics
import lobu_actors.telemetry
from lobu_actors.contract.errors import TurnError
from lobu_actors.contract.timeline import Moment
from tests.architecture.logged import ROOT, lines

CATALOGUE = ROOT / "docs" / "telemetry.md"
ALERTS = ROOT / "docs" / "alerts.yml"
_NAME = re.compile(r"`([^`]+)`")
_IN_EXPRESSION = re.compile(r"\blobu_[a-z_]+")
_SERIES = ("_bucket", "_count", "_sum")

Row = tuple[frozenset[str], frozenset[str]]


def rows(heading: str) -> list[list[str]]:
    """The cells of all tables whose first column has this heading."""
    found: list[list[str]] = []
    inside = False
    for line in CATALOGUE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not cells[0].startswith("---"):
            found.append(cells)
    return found


def logged() -> dict[str, Row]:
    levels: dict[str, set[str]] = defaultdict(set)
    fields: dict[str, set[str]] = defaultdict(set)
    for line in lines():
        levels[line.event] |= line.levels
        fields[line.event] |= line.fields
    return {event: (frozenset(levels[event]), frozenset(fields[event])) for event in levels}


def metrics() -> dict[str, Row]:
    found: dict[str, Row] = {}
    for module in (lobu_actors.telemetry, edge.metrics):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                name = metric._name + ("_total" if metric._type == "counter" else "")
                found[name] = (frozenset({metric._type}), frozenset(metric._labelnames))
    return found


def catalogued(heading: str) -> dict[str, Row]:
    """Of each name the second column's words and the third one's names."""
    found: dict[str, Row] = {}
    for cells in rows(heading):
        [name] = _NAME.findall(cells[0])
        assert name not in found, f"{name} stands there twice"
        assert cells[3], f"{name} says nothing"
        found[name] = (frozenset(cells[1].replace(",", " ").split()), frozenset(_NAME.findall(cells[2])))
    return found


def test_every_event_is_in_the_catalogue_and_every_one_there_is_logged() -> None:
    assert catalogued("event") == logged()


def test_every_metric_is_in_the_catalogue_and_every_one_there_is_kept() -> None:
    assert catalogued("metric") == metrics()


def test_every_entry_of_a_timeline_is_in_the_catalogue() -> None:
    named = [name for cells in rows("entry") for name in _NAME.findall(cells[0])]
    assert sorted(named) == sorted(Moment)


def test_there_is_enough_to_compare() -> None:
    """What reads the source finds what stands there: calls by every way in which the program makes them."""
    found = logged()
    assert len(found) > 100
    assert found["link is down"] == ({"info", "error"}, {"peer", "url", "reason", "again_in"})
    assert found["attempt failed"][0] == {"info"}
    assert found["stopping now"][0] == {"info"}


def test_alerts_are_on_metrics_that_there_are() -> None:
    used = set(
        _IN_EXPRESSION.findall("\n".join(re.findall(r"^ +(?:expr:|/|sum).*$", ALERTS.read_text(), re.MULTILINE)))
    )
    kept = metrics()
    series = {name + end for name, (kind, _) in kept.items() if "histogram" in kind for end in _SERIES}
    assert used
    assert used <= set(kept) | series
    for promised in ("lobu_edge_accept_seconds_bucket", "lobu_crash_to_terminal_seconds_bucket"):
        assert promised in used


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not there (apt-get install prometheus)")
def test_alerts_are_rules_that_prometheus_takes() -> None:
    checked = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert re.search(r"SUCCESS: \d+ rules found", checked.stdout)


def test_the_page_that_names_the_journals_fields_names_those_of_the_catalogue() -> None:
    known = {field for _, fields in logged().values() for field in fields}
    page = (ROOT / "docs" / "operations.md").read_text()
    journal = page.split("## The journal")[1].split("\n## ")[0]
    named = {
        name for line in journal.splitlines() if line.startswith("| `") for name in _NAME.findall(line.split("|")[1])
    }
    everywhere = {"event", "level", "timestamp", "exception"}
    assert named == known | everywhere


def test_each_code_of_a_failed_turn_sends_somebody_somewhere() -> None:
    table = (ROOT / "docs" / "failures.md").read_text().split("## Codes")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(code for row in rows for code in _NAME.findall(row)) == sorted(code.value for code in TurnError)
