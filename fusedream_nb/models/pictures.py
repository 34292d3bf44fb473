"""Pictures from outside, as a viewer shows them, and pictures of the world to hold results against."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .upscaler import FACTOR

if TYPE_CHECKING:
    from PIL.Image import Image

    from . import Models

PAPER = (255, 255, 255)  # what stands behind transparent places


def read_picture(
    source: str | Path | Image | np.ndarray[Any, Any] | Tensor, size: int | None = None
) -> Tensor:
    """Return a picture [3, h, w] in [-1, 1]; with ``size``, cropped to a square of that side in pixels.

    It is turned as its EXIF orientation says, its colours are brought to sRGB by its profile, 16 bits a
    channel become 8, transparent places become white, and of an animation it is the first frame.

    Args:
        source: a file, a picture of Pillow's, an array of uint8 [h, w], [h, w, 3] or [h, w, 4], or a tensor
            [3, h, w] in [-1, 1].
        size: the side in pixels of the square, cropped from the middle and resized by Lanczos' filter.

    Raises FileNotFoundError for a missing file, and ValueError for what is no picture.
    """
    from PIL import Image, ImageOps

    if isinstance(source, Tensor):
        source = (
            ((source.detach().cpu().float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        )
    name = str(source) if isinstance(source, str | Path) else "The picture"
    try:
        picture = _rgb(_open(source))
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no picture {name}.") from None
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}.") from error
    if size is not None:
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1


def _open(source: str | Path | Image | np.ndarray[Any, Any]) -> Image:
    from PIL import Image

    if isinstance(source, Image.Image):
        return source
    if isinstance(source, str | Path):
        return Image.open(source)
    if not isinstance(source, np.ndarray) or source.dtype != np.uint8:
        raise TypeError("an array should be of uint8, [h, w], [h, w, 3] or [h, w, 4]")
    return Image.fromarray(source)


def _rgb(picture: Image) -> Image:
    """Return a picture in sRGB, the right way up, on white."""
    from PIL import Image, ImageCms, ImageOps

    profile = picture.info.get("icc_profile")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):  # 16 bits or more a channel, which Pillow would clip at 255
        values = np.asarray(picture, dtype=np.float64)
        white = 65535 if picture.mode.startswith("I") else max(1.0, float(values.max()))
        return Image.fromarray((values * (255 / white)).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        picture = picture.convert("RGBA")
        behind = Image.new("RGBA", picture.size, (*PAPER, 255))
        return Image.alpha_composite(behind, picture).convert("RGB")
    if profile and picture.mode in ("RGB", "L", "CMYK"):
        try:
            srgb = ImageCms.createProfile("sRGB")
            changed = ImageCms.profileToProfile(picture, io.BytesIO(profile), srgb, outputMode="RGB")
            return changed or picture.convert("RGB")
        except ImageCms.PyCMSError:  # a profile of another mode, or a broken one: viewers pass over it
            pass
    return picture.convert("RGB")


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
