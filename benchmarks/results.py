"""Figures: percentiles of what was measured, its floor, the ratio; printed for people and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import attrs


def percentile(values: Sequence[float], fraction: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * fraction), len(ordered) - 1)]


@attrs.frozen
class Result:
    """`seconds` are of single repetitions; `floor_parts` are medians of the path's bare parts, in its order."""

    name: str
    what: str
    seconds: Sequence[float]
    floor_parts: Mapping[str, float]

    @property
    def floor(self) -> float:
        return sum(self.floor_parts.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "what": self.what,
            "repetitions": len(self.seconds),
            "p50_ms": round(percentile(self.seconds, 0.5) * 1e3, 3),
            "p99_ms": round(percentile(self.seconds, 0.99) * 1e3, 3),
            "max_ms": round(max(self.seconds) * 1e3, 3),
            "floor_ms": round(self.floor * 1e3, 3),
            "floor_parts_ms": {part: round(seconds * 1e3, 3) for part, seconds in self.floor_parts.items()},
            "p50_to_floor": round(percentile(self.seconds, 0.5) / self.floor, 2),
        }

    def as_text(self) -> str:
        figures = self.as_json()
        parts = " + ".join(f"{part} {ms:.2f}" for part, ms in figures["floor_parts_ms"].items())
        return (
            f"{self.name}: {self.what}\n"
            f"  p50 {figures['p50_ms']:.2f} ms   p99 {figures['p99_ms']:.2f} ms   max {figures['max_ms']:.2f} ms"
            f"   ({figures['repetitions']} times)\n"
            f"  floor {figures['floor_ms']:.2f} ms = {parts}\n"
            f"  p50 is {figures['p50_to_floor']:.1f} times the floor"
        )


class Reported(Protocol):
    def as_json(self) -> dict[str, Any]: ...

    def as_text(self) -> str: ...


def machine() -> dict[str, Any]:
    packages = ("lobu-actors", "trio", "quart", "quart-trio", "hypercorn", "psycopg")
    return {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "packages": {package: version(package) for package in packages},
    }


def report(results: Sequence[Reported], as_json: bool) -> str:
    if as_json:
        return json.dumps({"machine": machine(), "results": [result.as_json() for result in results]}, indent=2)
    return "\n\n".join(result.as_text() for result in results)
