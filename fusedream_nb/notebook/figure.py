"""A figure as a notebook keeps it: a small PNG on white, with an alternative text that is required."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas
from PIL import Image
from PIL.PngImagePlugin import PngInfo

# For matplotlib.rc_context; a "$" in a prompt is a "$".
STYLE: Any = {"font.size": 8, "text.parse_math": False, "figure.dpi": 110, "savefig.dpi": 110}


@dataclass(frozen=True)
class Figure:
    """A PNG and its alternative text, which a notebook shows and :meth:`save` writes."""

    png: bytes
    alt: str

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        image = base64.b64encode(self.png).decode()
        return {"image/png": image, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}

    def save(self, path: str | Path) -> Path:
        """Write the PNG to a file and return its path."""
        Path(path).write_bytes(self.png)
        return Path(path)


def blank(width: float, height: float, alt: str, world: str | None = None) -> Canvas:
    """Return an empty Matplotlib figure of a size in inches, with the world's name in its corner.

    Raises ValueError for a blank ``alt``: what will not be described is not drawn.
    """
    if not alt.strip():
        raise ValueError("Every picture wants an alternative text: say in alt what is to be seen.")
    canvas = Canvas(figsize=(width, height), facecolor="white")
    if world:
        canvas.text(0.998, 0.005, world, ha="right", va="bottom", fontsize=6, color="#555555")
    return canvas


def finish(canvas: Canvas, alt: str) -> Figure:
    """Return a drawn figure in 256 colours of its own: a fifth of the bytes, so notebooks stay small."""
    drawn, small, text = io.BytesIO(), io.BytesIO(), PngInfo()
    canvas.savefig(drawn, format="png")
    text.add_itxt("Description", alt)
    picture = Image.open(drawn).convert("RGB").quantize(256, kmeans=3, dither=Image.Dither.NONE)
    picture.save(small, "PNG", optimize=True, pnginfo=text)
    return Figure(small.getvalue(), alt)
