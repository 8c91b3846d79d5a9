"""What a benchmark found: latencies beside their floor, single figures, curves; as text, and as JSON that is kept.

One form for all kinds, so that a report, a comparison and a gate need to know none of them. Times are seconds here and
in `Histogram`, milliseconds where people read them.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs
import click

from benchmarks.histogram import Histogram

FORMAT = 2  # of the JSON
PACKAGES = ("lobu-actors", "trio", "quart", "quart-trio", "hypercorn", "psycopg", "msgspec", "hdrhistogram")


@attrs.frozen
class Latency:
    """`floor`: seconds of the path's bare parts, in its order, measured right before and after. `figures`: what else
    was seen meanwhile, by name with its unit."""

    name: str
    histogram: Histogram
    floor: Mapping[str, float] = attrs.field(factory=dict)
    figures: Mapping[str, float] = attrs.field(factory=dict)

    @property
    def ratio(self) -> float | None:
        """p50 to the floor."""
        floor = sum(self.floor.values())
        return self.histogram.percentile(50) / floor if floor else None

    def as_json(self) -> dict[str, Any]:
        found = self.histogram
        return {
            "name": self.name,
            "count": len(found),
            **{f"p{part:g}_ms": _ms(found.percentile(part)) for part in (50, 90, 99, 99.9)},
            "max_ms": _ms(found.most),
            "floor_ms": _ms(sum(self.floor.values())),
            "floor_parts_ms": {part: _ms(seconds) for part, seconds in self.floor.items()},
            "p50_to_floor": None if self.ratio is None else round(self.ratio, 3),
            "figures": {name: round(value, 4) for name, value in self.figures.items()},
            "hdr_ns": found.encode(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Latency:
        floor = {part: ms / 1e3 for part, ms in value["floor_parts_ms"].items()}
        return cls(value["name"], Histogram.decode(value["hdr_ns"]), floor, value["figures"])

    def as_text(self) -> list[str]:
        found = self.histogram
        lines = [
            f"  {self.name}: p50 {found.percentile(50) * 1e3:.2f} ms   p99 {found.percentile(99) * 1e3:.2f} ms   "
            f"max {found.most * 1e3:.2f} ms   ({len(found)} times)"
        ]
        if self.ratio is not None:
            parts = " + ".join(f"{part} {seconds * 1e3:.2f}" for part, seconds in self.floor.items())
            lines.append(f"    floor {sum(self.floor.values()) * 1e3:.2f} ms = {parts}")
            lines.append(f"    p50 is {self.ratio:.2f} times the floor")
        if self.figures:
            lines.append("    " + ", ".join(f"{name} {value:.3g}" for name, value in self.figures.items()))
        return lines


@attrs.frozen
class Figure:
    """One number. `floor`: what the bare parts gave in the same unit; with `more_is_better` the ratio is turned round,
    so that a greater ratio is always a greater distance from the floor."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        if not self.floor or not self.value:
            return None
        return self.floor / self.value if self.more_is_better else self.value / self.floor

    def as_json(self) -> dict[str, Any]:
        return attrs.asdict(self) | {"ratio": None if self.ratio is None else round(self.ratio, 3)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Figure:
        return cls(**{field.name: value[field.name] for field in attrs.fields(cls)})

    def as_text(self) -> str:
        beside = "" if self.ratio is None else f"   (floor {self.floor:.4g} {self.unit}: {self.ratio:.2f} times)"
        return f"  {self.name}: {self.value:.4g} {self.unit}{beside}"


@attrs.frozen
class Curve:
    """A plot with axes from 0: cost over growth."""

    title: str
    below: str
    beside: str
    series: Mapping[str, Sequence[tuple[float, float]]]


@attrs.frozen
class Result:
    """Of one kind; `settings` are what it was measured with."""

    kind: str
    what: str
    settings: Mapping[str, Any]
    latencies: Sequence[Latency] = ()
    figures: Sequence[Figure] = ()
    curves: Sequence[Curve] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "what": self.what,
            "settings": dict(self.settings),
            "latencies": [one.as_json() for one in self.latencies],
            "figures": [one.as_json() for one in self.figures],
            "curves": [attrs.asdict(one) for one in self.curves],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        return cls(
            value["kind"],
            value["what"],
            value["settings"],
            [Latency.from_json(one) for one in value["latencies"]],
            [Figure.from_json(one) for one in value["figures"]],
            [Curve(**one) for one in value["curves"]],
        )

    def as_text(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = [f"{self.kind}: {self.what}" + (f"  [{settings}]" if settings else "")]
        for latency in self.latencies:
            lines += latency.as_text()
        return "\n".join([*lines, *(figure.as_text() for figure in self.figures)])


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 4)


@attrs.frozen
class Run:
    """What one command measured: `about` has the machine, the versions and the time."""

    about: Mapping[str, Any]
    results: Sequence[Result]

    def as_json(self) -> str:
        found = {"format": FORMAT, "about": dict(self.about), "results": [one.as_json() for one in self.results]}
        return json.dumps(found, indent=1)

    def as_text(self) -> str:
        return "\n\n".join(result.as_text() for result in self.results)

    @classmethod
    def read(cls, path: Path) -> Run:
        """Raises ClickException when it is no file of `lobu bench`."""
        try:
            value = json.loads(path.read_text())
            if value["format"] != FORMAT:
                raise ValueError(f"it has format {value['format']}")
            return cls(value["about"], [Result.from_json(one) for one in value["results"]])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise click.ClickException(
                f"{path} is no run of this `lobu bench` ({error}); make one with `lobu bench KIND --output FILE`."
            ) from None


def run_of(results: Sequence[Result]) -> Run:
    about = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000,
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
    }
    return Run(about, results)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
