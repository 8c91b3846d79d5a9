"""Medians of the rounds with their spread, as text, as JSON, and as a table in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.rivals.measures import Found

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

# Of the table: (heading, name of the number, digits)
COLUMNS = (
    ("one turn p50, ms", "one turn p50, ms", 2),
    ("p99", "one turn p99, ms", 2),
    ("16 at once, turns/s", "at once, turns/s", 0),
    ("p99, ms", "at once p99, ms", 1),
    ("CPU ms a turn", "CPU ms a turn", 2),
    ("worker killed to error, ms", "worker killed to error p50, ms", 1),
    ("kB an idle stream", "kB an idle stream", 1),
)
KILLED = ("server", "server and workers")

Rounds = Mapping[str, Sequence[Found]]


def as_json(about: Mapping[str, Any], settings: Mapping[str, Any], rounds: Rounds) -> dict[str, Any]:
    """`values` in the order of the rounds."""
    return {
        "about": dict(about),
        "settings": dict(settings),
        "contenders": {
            name: {
                "numbers": {number: _summary(values) for number, values in _values(found).items()},
                "outcomes": {what: dict(counts) for what, counts in _outcomes(found).items()},
            }
            for name, found in rounds.items()
        },
    }


def as_text(rounds: Rounds) -> str:
    """Each number: its median, and from where to where it went."""
    lines = []
    for name, found in rounds.items():
        lines.append(name)
        for number, values in _values(found).items():
            lines.append(f"  {number}: {median(values):.4g}   ({min(values):.4g} to {max(values):.4g})")
        for what, counts in _outcomes(found).items():
            lines.append(f"  turn of a killed {what}: {_counted(counts)}")
    return "\n".join(lines)


def as_markdown(rounds: Rounds) -> str:
    heads = ["", *(head for head, _, _ in COLUMNS), *(f"{what} killed" for what in KILLED)]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for name, found in rounds.items():
        values, outcomes = _values(found), _outcomes(found)
        cells = [name, *(_cell(values.get(number, []), digits) for _, number, digits in COLUMNS)]
        for what in KILLED:
            seconds = values.get(f"{what} killed to end, s")
            after = f" after {_cell(seconds, 1)} s" if seconds else ""
            cells.append(_counted(outcomes.get(what, Counter({"-": 1}))) + after)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_into(page: Path, table: str) -> None:
    """Between the two marks. Raises ValueError when the page has none."""
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page} has no place for the figures: `{BEGIN}` and `{END}`, each on a line of its own")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def _values(found: Sequence[Found]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for one in found for name in one.numbers)
    return {name: [one.numbers[name] for one in found if name in one.numbers] for name in names}


def _outcomes(found: Sequence[Found]) -> dict[str, Counter[str]]:
    names = dict.fromkeys(name for one in found for name in one.outcomes)
    return {name: Counter(one.outcomes[name] for one in found if name in one.outcomes) for name in names}


def _summary(values: Sequence[float]) -> dict[str, Any]:
    rounded = [round(value, 4) for value in values]
    return {"median": round(median(values), 4), "least": min(rounded), "most": max(rounded), "values": rounded}


def _cell(values: Sequence[float], digits: int) -> str:
    """The median and, for more than one round, the spread."""
    if not values:
        return "-"
    spread = "" if len(values) == 1 else f" ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
    return f"{median(values):,.{digits}f}{spread}"


def _counted(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{what} {count} times" for what, count in counts.items())
