"""Curves as a small SVG: drawn in well under a millisecond, several times a second."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from .show import PALETTE

WIDTH, HEIGHT, MARGIN = 360, 120, 4
DASHES = ("", "5 3", "1 3")
POINTS = 300  # more are not seen


def svg(curves: Mapping[str, Sequence[tuple[float, float]]], marks: Mapping[float, str], alt: str) -> str:
    """Return an SVG of named curves of (x, y), y of finite numbers, with marks: x and what happened there."""
    points = [p for curve in curves.values() for p in curve if math.isfinite(p[1])]
    if not points:
        return ""
    low, high = min(y for _, y in points), max(y for _, y in points)
    last = max(1.0, *(x for x, _ in points))

    def place(x: float, y: float) -> str:
        right = MARGIN + (WIDTH - 2 * MARGIN) * x / last
        down = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (y - low) / (high - low or 1)
        return f"{right:.1f},{down:.1f}"

    rows = [_mark(x / last, text) for x, text in marks.items()]
    for i, curve in enumerate(curves.values()):
        thin = curve[:: max(1, len(curve) // POINTS)]
        line = " ".join(place(x, y) for x, y in thin if math.isfinite(y))
        rows.append(
            f'<polyline points="{line}" fill="none" stroke="{PALETTE[i % 3]}" stroke-width="1.6" '
            f'stroke-dasharray="{DASHES[i % 3]}"/>'
        )
    legend = " ".join(
        f'<span style="color:{PALETTE[i % 3]}">{"━╍┈"[i % 3]} {escape(name)} {curve[-1][1]:.3f}</span>'
        for i, (name, curve) in enumerate(curves.items())
        if curve
    )
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" style="background:#fff">{"".join(rows)}</svg><br>{legend}'
    )


def _mark(share: float, text: str) -> str:
    x = MARGIN + (WIDTH - 2 * MARGIN) * min(1.0, share)
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}" stroke="#bbb">'
    return f"{line}<title>{escape(text)}</title></line>"
