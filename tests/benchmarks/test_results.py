"""What is made of runs: kept and read back, put on a page, compared."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from benchmarks import compare, report
from benchmarks.histogram import Histogram
from benchmarks.results import Curve, Figure, Latency, Result, Run, run_of


def run(milliseconds: float = 4.0, rate: float = 500.0, floor: float = 1.0) -> Run:
    seconds = [milliseconds / 1e3 * (1 + number / 1000) for number in range(1000)]
    latency = Latency("warm <&>", Histogram(seconds), {"3 commits": floor / 1e3}, {"CPU ms a turn": milliseconds})
    figure = Figure("accepts", rate, "1/s", 1000.0, more_is_better=True)
    curve = Curve("Growth", "MB", "kB", {"segment": [(0.0, 1.0), (1.0, 2.0)]})
    return run_of([Result("terminal", "a turn", {"turns": 1000}, [latency], [figure], [curve])])


def test_a_histogram_keeps_three_digits_and_survives_its_text() -> None:
    found = Histogram(number / 1e3 for number in range(1, 1001))
    again = Histogram.decode(found.encode())
    for percent, seconds in ((50, 0.5), (90, 0.9), (99, 0.99), (100, 1.0)):
        assert again.percentile(percent) == pytest.approx(seconds, rel=2e-3)
    assert len(again) == 1000
    assert [percent for percent, _ in found.curve()][-1] == 99.9, "a tail of less than one value is no tail"


def test_what_is_beyond_the_range_counts_as_its_end() -> None:
    found = Histogram([0.0, 1e-9, 1e9])
    assert len(found) == 3
    assert found.most == pytest.approx(3600, rel=2e-3)


def test_a_run_is_read_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    kept = run()
    file.write_text(kept.as_json())
    assert Run.read(file).as_json() == kept.as_json()
    assert Run.read(file).as_text() == kept.as_text()
    assert json.loads(file.read_text())["about"]["packages"]["trio"]


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', '{"format": 2, "about": {}, "results": [{}]}'])
def test_what_is_no_run_is_told_in_a_sentence(text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(click.ClickException, match="make one with `lobu bench KIND --output FILE`"):
        Run.read(file)


def test_the_page_has_every_plot_as_svg() -> None:
    runs = {"before": run(), "after": run(8.0)}
    html = report.page(runs)
    plots = report.all_plots(runs)
    assert set(plots) == {"terminal", "terminal-before-growth-1", "terminal-after-growth-1"}
    for svg in plots.values():
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert svg.strip() in html
    assert "warm &lt;&amp;&gt;" in html
    assert "warm <&>" not in html


def test_a_ratio_counts_not_a_time() -> None:
    """Twice the time on a machine of half the speed is the same; so is half the rate beside half the floor."""
    slower = run(8.0, floor=2.0)
    [latency, cpu, figure] = compare.changes(run(), slower)
    assert latency.factor == pytest.approx(1.0)
    assert not latency.worse
    assert cpu.worse, "it has no floor of its own"
    assert figure.factor == pytest.approx(1.0)


def test_what_got_worse_is_pointed_out() -> None:
    found = compare.changes(run(), run(8.0, rate=250.0))
    assert [change.worse for change in found] == [True, True, True]
    assert compare.as_text(found).count("WORSE") == 3
    assert "2.00 times" in compare.as_text(found)


def test_runs_without_anything_in_common() -> None:
    assert compare.as_text(compare.changes(run_of([]), run())) == "The two runs have nothing in common."
