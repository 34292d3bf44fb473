"""Pictures to hold results against: what the words really mean, and one picture at two sizes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .pictures import read_picture
from .upscaler import FACTOR

if TYPE_CHECKING:
    from . import Models


def file_name(prompt: str) -> str:
    """Return the name, without its ending, of the file that holds the real picture of a prompt."""
    return "-".join(re.findall(r"[^\W_]+", prompt.lower()))


def real_things(
    models: Models, prompts: Sequence[str], folder: str | Path | None = None, *, seed: int = 0
) -> dict[str, Tensor]:
    """Return the real picture [3, size, size] in [-1, 1] of each prompt that has one.

    In the sticker world the renderer draws what the prompt says. Elsewhere it is the file in ``folder`` that
    :func:`file_name` names, .png or .jpg, cropped to a square and resized to the generator's size.
    """
    size = models.generator.size
    if models.world:
        from .stickers.reading import scene_of
        from .stickers.world import render

        rng = torch.Generator().manual_seed(seed)
        return {prompt: render(scene_of(prompt, rng), size)[0] for prompt in prompts}
    files = {p: _file(Path(folder), file_name(p)) for p in prompts} if folder else {}
    return {prompt: read_picture(path, size) for prompt, path in files.items() if path}


def _file(folder: Path, name: str) -> Path | None:
    there = (folder / f"{name}{ending}" for ending in (".png", ".jpg", ".jpeg"))
    return next((path for path in there if path.exists()), None)


@torch.no_grad()
def two_sizes(models: Models, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return n pictures [n, 3, h, w] and the same ones at four times the size, in [-1, 1].

    In the sticker world the renderer draws each scene twice. Elsewhere the large ones are samples of
    the generator, and the small ones are those, shrunk.
    """
    if models.world:
        from .stickers.scenes import sharp_scenes
        from .stickers.world import render

        scenes, size = sharp_scenes(n, rng), models.generator.size
        small, large = render(scenes, size), render(scenes, FACTOR * size, chunk=2)
        return small.to(models.device), large.to(models.device)
    latent = models.generator.sample(n, rng)
    large = torch.cat([models.generator.decode(latent[i : i + 1]) for i in range(n)])
    small = F.interpolate(large, scale_factor=1 / FACTOR, mode="bicubic", antialias=True)
    return small.clamp(-1, 1), large
