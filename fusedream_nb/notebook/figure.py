"""A figure as a notebook keeps it: on white, with an alternative text that is required.

With FUSEDREAM_FIGURES set to a folder, a figure that has an id is also written there as ``<id>.png``, and
as ``<id>.svg`` where it is a plot. The files carry a record: id, alternative text, and whatever is in
FUSEDREAM_RECORD, a JSON object that says how the notebook was run.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import figure as mpl
from PIL import Image
from PIL.PngImagePlugin import PngInfo

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
