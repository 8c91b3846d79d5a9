"""A line plot as SVG, small enough to be read: two axes with round numbers, one line for each named series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 76, 58  # around the axes
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
MOST_TICKS = 6


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
