"""One page of a set of runs: machine, settings, figures, and plots as SVG inside it; or the plots as files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape

from benchmarks.plot import line_plot, percentile_plot
from benchmarks.results import Latency, Result, Run

MOST_LINES = 8  # of one plot
_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
td, th { border-bottom: 1px solid #ddd; padding: .25em .8em; text-align: right }
td:first-child, th:first-child { text-align: left }
svg { max-width: 760px; display: block; margin: 1em 0 }
small, .about { color: #666 }
"""

Runs = Mapping[str, Run]


def page(runs: Runs) -> str:
    """`runs` by the name under which each is shown."""
    parts = ["<!doctype html><meta charset=utf-8><title>Benchmarks</title>", f"<style>{_STYLE}</style>"]
    parts.append("<h1>Benchmarks</h1>")
    for name, run in runs.items():
        about = ", ".join(f"{key} {json.dumps(value)}" for key, value in run.about.items())
        parts.append(f"<p class=about><b>{escape(name)}</b>: {escape(about)}</p>")
    for kind, results in _by_kind(runs).items():
        parts.append(f"<h2>{escape(kind)}</h2>")
        parts.append(f"<p>{escape(next(iter(results.values())).what)}</p>")
        parts += _tables(results)
        parts += plots(results).values()
    return "\n".join([*parts, ""])


def plots(results: Mapping[str, Result]) -> dict[str, str]:
    """Of one kind, by a name for a file: distributions of all runs' latencies together, curves of each."""
    found: dict[str, str] = {}
    kind = next(iter(results.values())).kind
    lines = [
        (f"{latency.name} ({run})" if len(results) > 1 else latency.name, latency.histogram.curve())
        for run, result in results.items()
        for latency in result.latencies
    ]
    for begin in range(0, len(lines), MOST_LINES):
        part = dict(lines[begin : begin + MOST_LINES])
        suffix = f"-{begin // MOST_LINES + 1}" if len(lines) > MOST_LINES else ""
        found[f"{kind}{suffix}"] = percentile_plot(f"{kind}: latency by percentile", part)
    for run, result in results.items():
        for number, curve in enumerate(result.curves, 1):
            title = f"{curve.title} ({run})" if len(results) > 1 else curve.title
            name = f"{kind}-{run}-growth-{number}" if len(results) > 1 else f"{kind}-growth-{number}"
            found[name] = line_plot(title, curve.below, curve.beside, curve.series)
    return found


def all_plots(runs: Runs) -> dict[str, str]:
    return {name: svg for results in _by_kind(runs).values() for name, svg in plots(results).items()}


def _by_kind(runs: Runs) -> dict[str, dict[str, Result]]:
    found: dict[str, dict[str, Result]] = {}
    for name, run in runs.items():
        for result in run.results:
            found.setdefault(result.kind, {})[name] = result
    return found


def _tables(results: Mapping[str, Result]) -> Iterator[str]:
    for run, result in results.items():
        settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
        yield f"<h3>{escape(run)} <small>{escape(settings)}</small></h3>"
        if result.latencies:
            head = ["latency", "n", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "floor ms", "p50 / floor"]
            yield _table(head, [_row(latency) for latency in result.latencies])
            for latency in result.latencies:
                figures = ", ".join(f"{name} {value:.3g}" for name, value in latency.figures.items())
                parts = " + ".join(f"{name} {seconds * 1e3:.3g}" for name, seconds in latency.floor.items())
                yield f"<small>{escape(latency.name)}: floor {escape(parts)} ms; {escape(figures)}</small><br>"
        if result.figures:
            rows = [
                [one.name, f"{one.value:.4g} {one.unit}", _number(one.floor), _number(one.ratio)]
                for one in result.figures
            ]
            yield _table(["figure", "value", "floor", "ratio"], rows)


def _row(latency: Latency) -> list[str]:
    found = latency.histogram
    times = [f"{found.percentile(part) * 1e3:.2f}" for part in (50, 99, 99.9, 100)]
    return [latency.name, str(len(found)), *times, f"{sum(latency.floor.values()) * 1e3:.2f}", _number(latency.ratio)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"
