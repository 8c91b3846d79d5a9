"""Latencies as HDR histograms: three significant digits from 1 µs to an hour, small to keep, exact to merge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hdrh.histogram import HdrHistogram

LEAST_NS, MOST_NS, DIGITS = 1_000, 3_600_000_000_000, 3
PERCENTILES = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99)


class Histogram:
    """Of durations in seconds. What is beyond the range counts as its end."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._counts: Any = HdrHistogram(LEAST_NS, MOST_NS, DIGITS)
        for value in seconds:
            self.record(value)

    def record(self, seconds: float) -> None:
        self._counts.record_value(min(max(int(seconds * 1e9), LEAST_NS), MOST_NS))

    def add(self, other: Histogram) -> None:
        self._counts.add(other._counts)

    def __len__(self) -> int:
        return int(self._counts.get_total_count())

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` of all did not exceed; 0.0 when there are none."""
        return float(self._counts.get_value_at_percentile(percent)) / 1e9 if len(self) else 0.0

    @property
    def most(self) -> float:
        return self.percentile(100.0)

    def curve(self) -> list[tuple[float, float]]:
        """(percent, seconds), from the least to as far into the tail as there are values for."""
        known = [percent for percent in PERCENTILES if len(self) * (100.0 - percent) >= 100.0 - 1e-6]
        return [(percent, self.percentile(percent)) for percent in known]

    def encode(self) -> str:
        """In the interchange format of HDR histograms, of nanoseconds."""
        return str(self._counts.encode().decode())

    @classmethod
    def decode(cls, text: str) -> Histogram:
        found = cls()
        found._counts = HdrHistogram.decode(text)
        return found
