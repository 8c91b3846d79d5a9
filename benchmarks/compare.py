"""Two runs beside each other: what both measured, by its distance from the floor of its own run."""

from __future__ import annotations

import itertools
from typing import Any

import attrs

from benchmarks.results import Result, Run

WORSE = 1.25  # of a ratio, from which on a change is pointed out


@attrs.frozen
class Change:
    """One thing that both runs have. `before` and `after` are p50s in ms, or values; ratios are to the floors."""

    kind: str
    name: str
    unit: str
    before: float
    after: float
    ratio_before: float | None
    ratio_after: float | None
    more_is_better: bool = False

    @property
    def factor(self) -> float | None:
        """How many times as far from the floor it is as before; without floors, how many times as costly."""
        if self.ratio_before and self.ratio_after:
            return self.ratio_after / self.ratio_before
        if not self.before or not self.after:
            return None
        return self.before / self.after if self.more_is_better else self.after / self.before

    @property
    def worse(self) -> bool:
        return self.factor is not None and self.factor >= WORSE

    def as_json(self) -> dict[str, Any]:
        return attrs.asdict(self) | {"factor": self.factor, "worse": self.worse}

    def as_text(self) -> str:
        def ratio(value: float | None) -> str:
            return "" if value is None else f" ({value:.2f}x)"

        factor = "" if self.factor is None else f"   {self.factor:.2f} times"
        return (
            f"  {self.name}: {self.before:.4g}{ratio(self.ratio_before)} -> {self.after:.4g} {self.unit}"
            f"{ratio(self.ratio_after)}{factor}{'   WORSE' if self.worse else ''}"
        )


def changes(before: Run, after: Run) -> list[Change]:
    """In the order of `after`."""
    earlier = {result.kind: result for result in before.results}
    return [
        change
        for result in after.results
        if result.kind in earlier
        for change in _of_kind(earlier[result.kind], result)
    ]


def _of_kind(before: Result, after: Result) -> list[Change]:
    latencies = {one.name: one for one in before.latencies}
    figures = {one.name: one for one in before.figures}
    found = []
    for latency in after.latencies:
        if (old := latencies.get(latency.name)) is None:
            continue
        was, now = (one.histogram.percentile(50) * 1e3 for one in (old, latency))
        found.append(Change(after.kind, f"{latency.name}, p50", "ms", was, now, old.ratio, latency.ratio))
        found += [
            Change(after.kind, f"{latency.name}, {name}", "", old.figures[name], value, None, None)
            for name, value in latency.figures.items()
            if name in old.figures and name.startswith("CPU ms")
        ]
    for figure in after.figures:
        if (earlier := figures.get(figure.name)) is not None:
            ratios = earlier.ratio, figure.ratio
            found.append(
                Change(
                    after.kind, figure.name, figure.unit, earlier.value, figure.value, *ratios, figure.more_is_better
                )
            )
    return found


def as_text(found: list[Change]) -> str:
    lines: list[str] = []
    for kind, group in itertools.groupby(found, key=lambda change: change.kind):
        lines.append(f"{kind}: before -> after (times the floor of its own run)")
        lines += [change.as_text() for change in group]
    return "\n".join(lines) or "The two runs have nothing in common."
