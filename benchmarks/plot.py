"""Plots as SVG, small enough to be read: a line for each named series, on axes with round numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 76, 58  # around the axes
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
MOST_TICKS = 6
LEGEND_LINE = 18


def line_plot(title: str, below: str, beside: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Both axes begin at 0; `below` and `beside` name them, with their units. Each line's name stands below its end."""
    points = [point for line in series.values() for point in line]
    across, upwards = (_ticks(max((point[axis] for point in points), default=1.0)) for axis in (0, 1))
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / across[-1] * (right - LEFT), floor - y / upwards[-1] * (floor - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 28, title, "middle", size=17),
        _text(LEFT - 48, TOP - 18, beside, "start"),
        _text((LEFT + right) / 2, HEIGHT - 14, below, "middle"),
    ]
    for value in upwards:
        _, y = place(0, value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{"#dddddd" if value else "black"}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{value:g}", "end"))
    for value in across:
        x, _ = place(value, 0)
        parts.append(f'<path d="M{x:.1f} {floor}v5" stroke="black"/>')
        parts.append(_text(x, floor + 20, f"{value:g}", "middle"))
    parts.append(f'<path d="M{LEFT} {TOP}V{floor}" stroke="black"/>')
    for number, (name, line) in enumerate((name, line) for name, line in series.items() if line):
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(x, y) for x, y in line]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(placed[-1][0], placed[-1][1] + 18, name, "end", colour))
    return "\n".join([*parts, "</svg>", ""])


def percentile_plot(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """(percent, seconds): time upwards by powers of ten, and across how rare it is, by powers of ten too."""
    points = [point for line in series.values() for point in line]
    times = [seconds * 1e3 for _, seconds in points if seconds > 0] or [1.0]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)) + 1e-9)
    high = max(high, low + 1)
    rarest = max([_rareness(percent) for percent, _ in points] or [1.0])
    height = HEIGHT + LEGEND_LINE * len(series)
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(percent: float, seconds: float) -> tuple[float, float]:
        upwards = (math.log10(max(seconds * 1e3, 10.0**low)) - low) / (high - low)
        return LEFT + _rareness(percent) / rarest * (right - LEFT), floor - upwards * (floor - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(WIDTH / 2, 28, title, "middle", size=17),
        _text(LEFT - 48, TOP - 18, "ms", "start"),
        _text((LEFT + right) / 2, HEIGHT - 14, "percent that took no longer", "middle"),
    ]
    for power in range(low, high + 1):
        _, y = place(0, 10.0**power / 1e3)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{10.0**power:g}", "end"))
    for percent in (0, 50, 90, 99, 99.9, 99.99):
        if _rareness(percent) <= rarest + 1e-9:
            x, _ = place(percent, 1.0)
            parts.append(f'<path d="M{x:.1f} {TOP}V{floor}" stroke="#eeeeee"/>')
            parts.append(_text(x, floor + 20, f"{percent:g}", "middle"))
    parts.append(f'<path d="M{LEFT} {TOP}V{floor}H{right}" stroke="black" fill="none"/>')
    for number, (name, line) in enumerate((name, line) for name, line in series.items() if line):
        colour = COLOURS[number % len(COLOURS)]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(LEFT, HEIGHT + 4 + LEGEND_LINE * number, name, "start", colour))
    return "\n".join([*parts, "</svg>", ""])


def _rareness(percent: float) -> float:
    """0 for 0, 1 for 90, 2 for 99."""
    return -math.log10(max(1 - percent / 100, 1e-9))


def _ticks(top: float) -> list[float]:
    """Round numbers from 0 to the first at or above `top`."""
    if top <= 0:
        return [0.0, 1.0]
    rough = top / (MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return [number * step for number in range(math.ceil(top / step - 1e-9) + 1)]


def _text(x: float, y: float, text: str, anchor: str, colour: str = "black", size: int = 13) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(text)}</text>'
