"""A line plot as SVG, small enough to be read: two axes, one polyline for each named series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 720, 360, 56
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


def line_plot(title: str, below: str, beside: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Both axes begin at 0. Series of no points are named and not drawn."""
    points = [point for line in series.values() for point in line]
    right = max((x for x, _ in points), default=0) or 1.0
    top = max((y for _, y in points), default=0) or 1.0

    def place(x: float, y: float) -> str:
        across = MARGIN + x / right * (WIDTH - 2 * MARGIN)
        return f"{across:.1f},{HEIGHT - MARGIN - y / top * (HEIGHT - 2 * MARGIN):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 24, title, "middle"),
        _text(WIDTH / 2, HEIGHT - 12, below, "middle"),
        _text(8, MARGIN - 12, beside, "start"),
        _text(MARGIN - 6, MARGIN + 4, f"{top:.4g}", "end"),
        _text(MARGIN - 6, HEIGHT - MARGIN, "0", "end"),
        _text(WIDTH - MARGIN, HEIGHT - MARGIN + 16, f"{right:.4g}", "end"),
        f'<polyline points="{place(0, top)} {place(0, 0)} {place(right, 0)}" fill="none" stroke="black"/>',
    ]
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        if line:
            drawn = " ".join(place(x, y) for x, y in line)
            parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}"/>')
        parts.append(_text(WIDTH - MARGIN, MARGIN + 16 * number, name, "end", colour))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str, colour: str = "black") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
