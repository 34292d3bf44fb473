"""Pictures for a notebook: grids, filmstrips and curves, each with an alternative text that is required.

Every function returns a Figure, which a notebook shows on white. A figure drawn in the sticker world says so
in its corner: pass ``world=models.world``. A figure of the papers has an id: pass ``figure="fd-02"``, and
``fusedream-nb reproduce`` finds it. With FUSEDREAM_FIGURES set to a folder, it is also written there as
``<id>.png``, and as ``<id>.svg`` where it is a plot. The files carry a record: id, alternative text, and
whatever is in FUSEDREAM_RECORD, a JSON object that says how the notebook was run.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib import figure as mpl
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fusedream_nb.method.run import Step
from fusedream_nb.records import png

FORMAT = 1  # of a figure's record
QUALITIES, MOST = (80, 65, 50, 35, 25), 45_000  # of a notebook's JPEG, and the bytes above which it is lower
# For matplotlib.rc_context; a "$" in a prompt is a "$", and equal plots have equal bytes.
STYLE: Any = {
    "font.size": 8,
    "text.parse_math": False,
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "svg.hashsalt": "fusedream",
}


@dataclass(frozen=True)
class Figure:
    """A PNG and its alternative text; ``small`` is what a notebook keeps of it, by its kind of image."""

    png: bytes
    alt: str
    small: tuple[str, bytes]

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        kind, data = self.small
        return {kind: base64.b64encode(data).decode(), "text/plain": self.alt}, {kind: {"alt": self.alt}}

    def save(self, path: str | Path) -> Path:
        """Write the PNG to a file and return its path."""
        Path(path).write_bytes(self.png)
        return Path(path)


def blank(width: float, height: float, alt: str, world: str | None = None) -> mpl.Figure:
    """Return an empty Matplotlib figure of a size in inches, with the world's name in its corner.

    Raises ValueError for a blank ``alt``: what will not be described is not drawn.
    """
    if not alt.strip():
        raise ValueError("A picture requires an alternative text; describe in alt what it shows.")
    drawing = mpl.Figure(figsize=(width, height), facecolor="white")
    if world:
        drawing.text(0.998, 0.005, world, ha="right", va="bottom", fontsize=6, color="#555555")
    return drawing


def finish(drawing: mpl.Figure, alt: str, figure: str | None = None, *, plot: bool = False) -> Figure:
    """Return a drawn figure; a notebook keeps a plot in 256 colours and pictures as JPEG, so it stays small.

    ``figure`` is its id, "fd-05", or, where a figure has several parts, "fd-05-curves"; ``plot`` says
    that it is drawn of lines. Raises ValueError for an id that could not be a file's name.
    """
    if figure is not None and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", figure):
        raise ValueError(f"A figure's id is like fd-05 or fd-05-curves; {figure!r} is not.")
    file = io.BytesIO()
    drawing.savefig(file, format="png")
    picture = Image.open(file).convert("RGB")
    if plot:
        picture = picture.quantize(256, kmeans=1, dither=Image.Dither.NONE)
    folder = os.environ.get("FUSEDREAM_FIGURES")
    if figure and folder:
        made_by = json.loads(os.environ.get("FUSEDREAM_RECORD") or "{}")
        values = {"figure": figure, "alt": alt, **made_by, "format": FORMAT}
        record, path = json.dumps(values, ensure_ascii=False), Path(folder, figure)
        files = {path.with_suffix(".png"): _png(picture, alt, record)}
        if plot:
            texts, file = {"Date": None, "Description": alt, "Source": record}, io.BytesIO()
            drawing.savefig(file, format="svg", metadata=texts)
            files[path.with_suffix(".svg")] = file.getvalue()
        png.write(files)
    whole = _png(picture, alt)
    return Figure(whole, alt, ("image/png", whole) if plot else ("image/jpeg", _jpeg(picture)))


def _jpeg(picture: Image.Image) -> bytes:
    for quality in QUALITIES:
        small = io.BytesIO()
        picture.save(small, "JPEG", quality=quality, optimize=True, progressive=True)
        if len(small.getvalue()) <= MOST:
            break
    return small.getvalue()


def _png(picture: Image.Image, alt: str, record: str | None = None) -> bytes:
    small, text = io.BytesIO(), PngInfo()
    text.add_itxt("Description", alt)
    if record:
        text.add_itxt(png.CHUNK, record)
    picture.save(small, "PNG", optimize=True, pnginfo=text)
    return small.getvalue()


# Okabe and Ito (2008): distinct with any colour vision; each has its own dash too.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 2)))
TILE = 1.5  # inches per picture
LETTERS = 24  # as many as fit along a picture
LINE = 0.14  # inches per line of text
GAP = 0.06  # inches between pictures
FEW = 12  # curves of so few points show each of them
PANEL, LARGE = 2.3, 3.1  # inches of a cost plane; the larger where there are at most two in a row
ARROW = 0.12  # of the axes' range: an arrow of the mean length


@rc_context(STYLE)
def grid(
    images: Tensor | Sequence[Tensor],
    titles: Sequence[str] = (),
    *,
    alt: str,
    rows: Sequence[str] = (),
    columns: int | None = None,
    tile: float = TILE,
    figure: str | None = None,
    world: str | None = None,
) -> Figure:
    """Show images [n, 3, h, w] in [-1, 1] (or a list of such batches) in rows of ``columns``.

    ``titles`` stand above the images, ``rows`` left of the rows; long ones are wrapped. An image is
    ``tile`` inches wide: smaller ones keep a large gallery's file small.
    Raises ValueError for a blank ``alt``, for no images, and for more titles or rows than there are.
    """
    batch = images if isinstance(images, Tensor) else torch.cat([part.cpu() for part in images])
    pixels = ((batch.detach().float().cpu().clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
    if len(pixels) == 0 or len(titles) > len(pixels):
        raise ValueError(
            f"A grid requires an image for each title: {len(pixels)} images, {len(titles)} titles."
        )
    columns = columns or min(len(pixels), 6)
    count = math.ceil(len(pixels) / columns)
    if len(rows) > count:
        raise ValueError(f"A grid requires a row per name: {count} rows, {len(rows)} names.")
    letters = max(1, round(LETTERS * tile / TILE))
    above, beside = _wrapped(titles, letters), _wrapped(rows, letters)
    lines = [_lines(above[i * columns : (i + 1) * columns]) for i in range(count)]
    high = tile * batch.shape[-2] / batch.shape[-1]
    drawing, axes = _tiles(columns, lines, _lines(beside), tile, high, alt, world)
    smooth = "lanczos" if batch.shape[-1] < 200 else "antialiased"
    for ax, image in zip(axes, pixels, strict=False):
        ax.imshow(image, interpolation=smooth)
    for ax, title in zip(axes, above, strict=False):
        ax.set_title(title, fontsize=8, pad=3)
    for ax, name in zip(axes[::columns], beside, strict=False):
        ax.text(-0.03, 0.5, name, rotation=90, ha="right", va="center", transform=ax.transAxes)
    return finish(drawing, alt, figure)


def framed(images: Tensor, groups: Sequence[int] | Tensor, width: float = 0.05) -> Tensor:
    """Return images [n, 3, h, w] in [-1, 1] with a frame in their group's colour, ``PALETTE[group]``.

    ``width`` is a share of the side.
    """
    edge = max(1, round(width * images.shape[-1]))
    colours = 2 * torch.tensor([to_rgb(PALETTE[int(group)]) for group in groups]) - 1
    drawn = colours.view(-1, 3, 1, 1).expand(images.shape).clone()
    drawn[:, :, edge:-edge, edge:-edge] = images.detach().float().cpu()[:, :, edge:-edge, edge:-edge]
    return drawn


def _tiles(
    columns: int, above: Sequence[int], beside: int, tile: float, high: float, alt: str, world: str | None
) -> tuple[mpl.Figure, list[Axes]]:
    """Return an empty sheet of axes; ``above`` are each row's lines of text, ``beside`` those left."""
    titles, margin = [0.05 + LINE * lines for lines in above], (0.05 + LINE * beside) * bool(beside)
    width, side = margin + columns * tile, tile - GAP * (columns - 1) / columns
    bottom = height = sum(titles) + len(above) * high + LINE * bool(world)
    drawing, axes = blank(width, height, alt, world), []
    for title in titles:
        bottom -= title + high
        for column in range(columns):
            place = (margin + column * (side + GAP)) / width, bottom / height, side / width, high / height
            axes.append(drawing.add_axes(place))
            axes[-1].set_axis_off()
    return drawing, axes


def _wrapped(texts: Sequence[str], letters: int) -> list[str]:
    return ["\n".join(textwrap.fill(line, letters) for line in text.split("\n")) for text in texts]


def _lines(texts: Sequence[str]) -> int:
    return max((text.count("\n") + 1 for text in texts), default=0)


def filmstrip(
    steps: Sequence[Step] | Mapping[str, Sequence[Step]],
    *,
    alt: str,
    frames: int = 6,
    figure: str | None = None,
    world: str | None = None,
) -> Figure:
    """Show evenly spaced steps of a run side by side with their scores; one row for each image.

    Several runs, by name, stand one below the other, each named at its first row.
    Raises ValueError for a blank ``alt``, for no steps, and for runs of different numbers of images.
    """
    runs = steps if isinstance(steps, Mapping) else {"": steps}
    if not runs or not all(runs.values()):
        raise ValueError("A filmstrip requires at least one step; this list is empty.")
    if len({run[0].image.shape for run in runs.values()}) > 1:
        raise ValueError("The runs of one filmstrip must have equally many images of one size.")
    frames = min(frames, *map(len, runs.values()))
    images, titles, rows = [], [], []
    for name, run in runs.items():
        places = torch.linspace(0, len(run) - 1, frames).round().long().tolist()
        for i in range(len(run[0].image)):
            rows.append("" if i else name)
            for step in (run[place] for place in places):
                images.append(step.image[i : i + 1])
                titles.append(f"step {step.index}\n" if step.index else "start\n")
                titles[-1] += f"{step.score[i]:.2f}"
    names = rows if any(rows) else ()
    return grid(images, titles, alt=alt, rows=names, columns=frames, figure=figure, world=world)


@rc_context(STYLE)
def curves(
    series: Mapping[str, Sequence[float] | Tensor],
    *,
    alt: str,
    x: Sequence[float] | None = None,
    xlabel: str = "step",
    ylabel: str = "AugCLIP",
    log: bool = False,
    figure: str | None = None,
    world: str | None = None,
) -> Figure:
    """Draw named curves [steps]; curves [seeds, steps] as their mean with a band of one standard deviation.

    ``x`` [steps] is 0, 1, … unless given, on a logarithmic axis with ``log``.
    Raises ValueError for a blank ``alt``, for no curves, for an ``x`` of another length, and for a
    logarithmic axis that is to show zero.
    """
    if not series:
        raise ValueError("A plot requires at least one curve; this mapping is empty.")
    if log and (x is None or min(x) <= 0):
        raise ValueError("A logarithmic axis requires x, all of it above zero.")
    drawing = blank(5.2, 2.8, alt, world)
    drawing.set_layout_engine("constrained")
    ax = drawing.subplots()
    for place, (name, values) in enumerate(series.items()):
        runs = torch.atleast_2d(torch.as_tensor(values).detach().float().cpu())
        mean, at = runs.mean(0), range(runs.shape[1]) if x is None else x
        if len(at) != len(mean):
            raise ValueError(f"The curve {name!r} has {len(mean)} points, x has {len(at)}.")
        colour, dash = PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]
        dot = "o" if len(mean) <= FEW else ""
        ax.plot(at, mean, color=colour, linestyle=dash, linewidth=1.6, marker=dot, markersize=3, label=name)
        if len(runs) > 1:
            std = runs.std(0)
            ax.fill_between(at, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:,g}")  # Matplotlib's own needs the mathematics that STYLE forbids
        ax.xaxis.set_minor_formatter("")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return finish(drawing, alt, figure, plot=True)


@rc_context(STYLE)
def diagram(
    boxes: Mapping[str, tuple[float, float]],
    arrows: Sequence[tuple[str, str]],
    *,
    alt: str,
    back: Sequence[tuple[str, str, str]] = (),
    figure: str | None = None,
) -> Figure:
    """Draw labelled boxes at (column, row) and arrows between them.

    ``back`` are curved and dashed arrows (from, to, label): where gradients flow.
    Raises ValueError for a blank ``alt``, and KeyError for an arrow to a box that is not there.
    """
    columns, rows = (max(place[i] for place in boxes.values()) for i in (0, 1))
    drawing = blank(1.25 * (columns + 1), 0.85 * (rows + 1.6), alt)
    ax = drawing.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-0.6, columns + 0.6), ylim=(rows + 1.15, -0.5))
    ax.set_axis_off()
    frame = {"boxstyle": "round,pad=0.5", "fc": "#eef4fa", "ec": PALETTE[0]}
    texts = {
        name: ax.text(*place, name, ha="center", va="center", fontsize=9, bbox=frame)
        for name, place in boxes.items()
    }

    def arrow(start: str, end: str, **style: Any) -> None:  # noqa: ANN401  Matplotlib's
        ends = {"patchA": texts[start].get_bbox_patch(), "patchB": texts[end].get_bbox_patch()}
        ax.annotate("", boxes[end], boxes[start], arrowprops={"arrowstyle": "-|>"} | ends | style)

    for start, end in arrows:
        arrow(start, end, color="black")
    for start, end, label in back:
        arrow(start, end, color=PALETTE[1], linestyle="--", connectionstyle="arc3,rad=-0.22")
        middle = (boxes[start][0] + boxes[end][0]) / 2
        ax.text(middle, rows + 1.0, label, ha="center", va="center", fontsize=9, color=PALETTE[1])
    return finish(drawing, alt, figure, plot=True)


@rc_context(STYLE)
def cost_plane(
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
        raise ValueError("A cost plane requires at least one panel; this mapping is empty.")
    if not all(0 <= place < len(prompts) for place in pair):
        raise ValueError(f"The pair {pair} is not among {len(prompts)} prompts.")
    columns = columns or min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    drawn = [[x.detach().float().cpu()[:, list(pair)] for x in panel] for panel in panels.values()]
    at, pull = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    scale = -ARROW * max(float(at.max() - at.min()), 1e-3) / pull.norm(dim=1).mean().clamp(min=1e-12)
    shown = torch.cat([at, at + scale * pull])  # with the arrows' tips
    room = 0.05 * max(float(shown.max() - shown.min()), 1e-3)
    ends = float(shown.min()) - room, float(shown.max()) + room
    side = PANEL if columns > 2 else LARGE
    lines = _lines(list(panels))
    drawing = blank(columns * side + 0.3, rows * (side + 0.15 * lines) + 0.4, alt, world)
    drawing.set_layout_engine("constrained", rect=(0, 0.03, 1, 0.94), h_pad=0.1)
    cells = drawing.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax, name, (costs, pull) in zip(cells.flat, panels, drawn, strict=False):
        _panel(ax, costs, scale * pull)
        ax.set_title(name, fontsize=8)
        ax.set(xlim=ends, ylim=ends, aspect="equal")
    for ax in cells.flat[len(drawn) :]:
        ax.set_axis_off()
    first, second = (f"cost to “{prompts[place]}”" for place in pair)
    drawing.supxlabel(textwrap.fill(first, round(30 * columns)), fontsize=8)
    drawing.supylabel(textwrap.fill(second, round(30 * rows * side / PANEL)), fontsize=8)
    return finish(drawing, alt, figure, plot=True)


def _panel(ax: Axes, costs: Tensor, pull: Tensor) -> None:
    """Draw patches [n, 2] and their arrows; on the dotted line both prompts are equally near."""
    ax.axline((0, 0), slope=1, color="#999999", linewidth=0.8, linestyle=":")
    second = costs[:, 1] < costs[:, 0]
    for mine, colour, marker in zip((~second, second), PALETTE, "os", strict=False):
        x, y = costs[mine].unbind(1)
        true = {"angles": "xy", "scale_units": "xy", "scale": 1.0}  # in the axes' own units
        ax.quiver(x, y, *pull[mine].unbind(1), color=colour, width=0.006, alpha=0.75, **true)  # type: ignore[arg-type]
        ax.scatter(x, y, s=11, color=colour, marker=marker, linewidths=0, zorder=3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)
