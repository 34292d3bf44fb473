"""Pictures for a notebook: grids, filmstrips and curves, each with an alternative text.

Every function returns a Figure, which a notebook shows as a PNG on white. A figure drawn in the sticker
world says so in its corner: pass ``world=models.world``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib import rc_context
from torch import Tensor

from fusedream_nb.method.optimise import Step

from .figure import STYLE, Figure, blank, finish

# Okabe and Ito (2008): told apart with any colour vision; each comes with a dash of its own too.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 2)))
TILE = 1.5  # inches a picture


@rc_context(STYLE)
def grid(
    images: Tensor | Sequence[Tensor],
    titles: Sequence[str] = (),
    *,
    alt: str,
    columns: int | None = None,
    world: str | None = None,
) -> Figure:
    """Show images [n, 3, h, w] in [-1, 1] (or a list of such batches) in rows of ``columns``.

    Raises ValueError for a blank ``alt``, for no images and for more titles than images.
    """
    batch = images if isinstance(images, Tensor) else torch.cat([part.cpu() for part in images])
    pixels = ((batch.detach().float().cpu().clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
    if len(pixels) == 0 or len(titles) > len(pixels):
        raise ValueError(f"A grid wants an image for each title: {len(pixels)} images, {len(titles)} titles.")
    columns = columns or min(len(pixels), 6)
    rows = math.ceil(len(pixels) / columns)
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    title, foot = 0.05 + 0.14 * lines, 0.14 * bool(world)
    width, height = columns * TILE, rows * (TILE + title) + foot
    canvas = blank(width, height, alt, world)
    space = {"left": 0.0, "right": 1.0, "top": 1 - title / height, "bottom": foot / height}
    axes = canvas.subplots(rows, columns, squeeze=False).flatten()
    canvas.subplots_adjust(**space, wspace=0.04, hspace=title / TILE)
    for place, ax in enumerate(axes):
        ax.set_axis_off()
        if place < len(pixels):
            smooth = "lanczos" if batch.shape[-1] < 200 else "antialiased"
            ax.imshow(pixels[place], interpolation=smooth)
        if place < len(titles):
            ax.set_title(titles[place], fontsize=8, pad=3)
    return finish(canvas, alt)


def filmstrip(steps: Sequence[Step], *, alt: str, frames: int = 6, world: str | None = None) -> Figure:
    """Show evenly spaced steps of a run side by side with their scores; one row for each image.

    Raises ValueError for a blank ``alt`` and for no steps.
    """
    if not steps:
        raise ValueError("A filmstrip wants at least one step; this list is empty.")
    places = torch.linspace(0, len(steps) - 1, min(frames, len(steps))).round().long()
    chosen = [steps[place] for place in places.tolist()]
    names = [f"step {step.index}" if step.index else "start" for step in chosen]
    scores = torch.stack([step.score.cpu() for step in chosen], 1)  # [n, frames]
    pairs = [pair for row in scores.tolist() for pair in zip(names, row, strict=True)]
    titles = [f"{name}\n{value:.2f}" for name, value in pairs]
    images = torch.stack([step.image.cpu() for step in chosen], 1)  # [n, frames, 3, h, w]
    return grid(images.flatten(0, 1), titles, alt=alt, columns=len(chosen), world=world)


@rc_context(STYLE)
def curves(
    series: Mapping[str, Sequence[float] | Tensor],
    *,
    alt: str,
    xlabel: str = "step",
    ylabel: str = "AugCLIP",
    world: str | None = None,
) -> Figure:
    """Draw named curves [steps]; curves [seeds, steps] as their mean with a band of one deviation.

    Raises ValueError for a blank ``alt`` and for no curves.
    """
    if not series:
        raise ValueError("A plot of curves wants at least one; this mapping is empty.")
    canvas = blank(5.2, 2.8, alt, world)
    canvas.set_layout_engine("constrained")
    ax = canvas.subplots()
    for i, (name, values) in enumerate(series.items()):
        runs = torch.atleast_2d(torch.as_tensor(values).detach().float().cpu())
        mean, colour = runs.mean(0), PALETTE[i % len(PALETTE)]
        ax.plot(mean, color=colour, linestyle=DASHES[i % len(DASHES)], linewidth=1.6, label=name)
        if len(runs) > 1:
            low, high = mean - runs.std(0), mean + runs.std(0)
            ax.fill_between(range(len(mean)), low, high, color=colour, alpha=0.18, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return finish(canvas, alt)
