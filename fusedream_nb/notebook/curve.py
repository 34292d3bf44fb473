"""Curves as a small SVG: drawn in well under a millisecond, several times a second."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from .show import PALETTE

WIDTH, HEIGHT, MARGIN = 520, 120, 4
RIGHT = WIDTH - 46  # where the curves end; beyond are the numbers
DASHES = ("", "6 3", "2 3", "8 3 2 3")
POINTS = 300  # more are not seen
LETTERS = 28  # of a curve's name

Curve = Sequence[tuple[float, float]]


def svg(curves: Mapping[str, Curve], marks: Mapping[float, str], alt: str) -> str:
    """Return an SVG of named curves of (x, y), y of finite numbers, with marks: x and what happened there."""
    points = [p for curve in curves.values() for p in curve if math.isfinite(p[1])]
    if not points:
        return ""
    low, high = min(y for _, y in points), max(y for _, y in points)
    last = max(1.0, *(x for x, _ in points))

    def place(x: float, y: float) -> str:
        right = MARGIN + (RIGHT - MARGIN) * x / last
        down = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (y - low) / (high - low or 1)
        return f"{right:.1f},{down:.1f}"

    rows = [_mark(x / last, text) for x, text in marks.items()]
    for i, curve in enumerate(curves.values()):
        line = " ".join(place(x, y) for x, y in curve[:: max(1, len(curve) // POINTS)] if math.isfinite(y))
        dash = f'stroke-dasharray="{DASHES[i % len(DASHES)]}"'
        rows.append(
            f'<polyline points="{line}" fill="none" stroke="{_colour(i)}" stroke-width="1.8" {dash}/>'
        )
    rows += [_number(high, 12), _number(low, HEIGHT - MARGIN)]
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" style="background:#fff">{"".join(rows)}</svg><br>{_legend(curves)}'
    )


def _colour(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _mark(share: float, text: str) -> str:
    x = MARGIN + (RIGHT - MARGIN) * min(1.0, share)
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}" stroke="#999" stroke-dasharray="1 2">'
    return f"{line}<title>{escape(text)}</title></line>"


def _number(value: float, down: float) -> str:
    return f'<text x="{RIGHT + 6}" y="{down}" font-size="11" fill="#555">{value:.3g}</text>'


def _legend(curves: Mapping[str, Curve]) -> str:
    """Return each curve's colour, dash, name and last value."""
    rows = []
    for i, (name, curve) in enumerate(curves.items()):
        short = name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
        line = (
            f'<svg width="26" height="8"><line x1="0" x2="26" y1="4" y2="4" stroke="{_colour(i)}" '
            f'stroke-width="2.4" stroke-dasharray="{DASHES[i % len(DASHES)]}"/></svg>'
        )
        if curve:
            rows.append(f'<span style="white-space:nowrap">{line} {escape(short)} {curve[-1][1]:.3f}</span>')
    return " &nbsp; ".join(rows)
