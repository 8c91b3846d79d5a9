"""What campaigns print: percentiles of what was measured, and the settings that bound it."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.config.settings import Limits
from supervisor.links.takeover import LOOK_SECONDS

BOUNDING = ("host_ttl_seconds", "host_renew_seconds", "host_margin_seconds", "sweep_interval_seconds")


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: a value that was measured, at or above `share` of all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float]) -> str:
    if not values:
        return "nothing was measured"
    p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, max {max(values):.2f} s, of {len(values)}"


def bounding_settings() -> str:
    limits = Limits()
    shown = [f"{name} {getattr(limits, name):g}" for name in BOUNDING]
    return f"{', '.join(shown)}; a killed host is looked for every {LOOK_SECONDS:g} s"
