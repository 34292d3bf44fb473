"""The cost plane: each patch where its costs to two prompts put it, with an arrow for its pull."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from torch import Tensor

from .figure import STYLE, Figure, blank, finish
from .show import PALETTE

PANEL, LARGE = 2.3, 3.1  # inches; the larger where there are at most two in a row
LETTERS = 30  # as many as fit along a panel
ARROW = 0.12  # of the axes' range: an arrow of the mean length
MARKERS = ("o", "s")  # nearer to the first prompt, nearer to the second


@rc_context(STYLE)
def arrows(
    panels: Mapping[str, tuple[Tensor, Tensor]],
    prompts: Sequence[str],
    *,
    alt: str,
    pair: tuple[int, int] = (0, 1),
    columns: int | None = None,
    figure: str | None = None,
    world: str | None = None,
) -> Figure:
    """Draw patches on the plane of their costs to two prompts, and where a descent pulls each (Eq. 7).

    A panel is (costs, tangents), both [patches, m], under its name; ``pair`` are the places of the two
    prompts among the m. An arrow is -w. All panels share their range and the arrows' scale.
    Raises ValueError for a blank ``alt``, for no panels, and for a pair that is not among the prompts.
    """
    if not panels:
        raise ValueError("A cost plane wants at least one panel; this mapping is empty.")
    if not all(0 <= place < len(prompts) for place in pair):
        raise ValueError(f"The pair {pair} is not among {len(prompts)} prompts.")
    columns = columns or min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    drawn = {
        name: (costs.detach().float().cpu()[:, list(pair)], -tangents.detach().float().cpu()[:, list(pair)])
        for name, (costs, tangents) in panels.items()
    }
    at, pull = (torch.cat(parts) for parts in zip(*drawn.values(), strict=True))
    scale = ARROW * max(float(at.max() - at.min()), 1e-3) / pull.norm(dim=1).mean().clamp(min=1e-12)
    low, high = _range(torch.cat([at, at + scale * pull]))
    side = PANEL if columns > 2 else LARGE
    lines = max(name.count("\n") + 1 for name in drawn)
    canvas = blank(columns * side + 0.3, rows * (side + 0.15 * lines) + 0.4, alt, world)
    canvas.set_layout_engine("constrained", rect=(0, 0.03, 1, 0.94), h_pad=0.1)
    cells = canvas.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax, (name, (costs, pull)) in zip(cells.flat, drawn.items(), strict=False):
        _panel(ax, costs, scale * pull)
        ax.set_title(name, fontsize=8)
        ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for ax in cells.flat[len(drawn) :]:
        ax.set_axis_off()
    first, second = (f"cost to “{prompts[place]}”" for place in pair)
    canvas.supxlabel(textwrap.fill(first, round(LETTERS * columns)), fontsize=8)
    canvas.supylabel(textwrap.fill(second, round(LETTERS * rows * side / PANEL)), fontsize=8)
    return finish(canvas, alt, figure, plot=True)


def _range(costs: Tensor) -> tuple[float, float]:
    """Return what both axes show: all patches and the tips of their arrows, with a margin."""
    low, high = float(costs.min()), float(costs.max())
    room = 0.05 * max(high - low, 1e-3)
    return low - room, high + room


def _panel(ax: Axes, costs: Tensor, pull: Tensor) -> None:
    """Draw patches [n, 2] and their arrows; on the dotted line both prompts are equally near."""
    ax.axline((0, 0), slope=1, color="#999999", linewidth=0.8, linestyle=":")
    second = costs[:, 1] < costs[:, 0]
    for place, mine in enumerate((~second, second)):
        at, to, colour = costs[mine], pull[mine], PALETTE[place]
        x, y = at.unbind(1)
        true = {"angles": "xy", "scale_units": "xy", "scale": 1.0}  # in the axes' own units
        ax.quiver(x, y, *to.unbind(1), color=colour, width=0.006, alpha=0.75, **true)  # type: ignore[arg-type]
        ax.scatter(x, y, s=11, color=colour, marker=MARKERS[place], linewidths=0, zorder=3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)
