"""Pictures from outside, as a viewer shows them, and pictures of the world to hold results against."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .upscaler import FACTOR
from .weights import sha256

if TYPE_CHECKING:
    from PIL.Image import Image

    from . import Models

Picture: TypeAlias = "str | Path | PictureFile | Image | np.ndarray[Any, Any] | Tensor"


@dataclass(frozen=True)
class PictureFile:
    """A picture's file, as a record names it: an absolute path, and the SHA-256 of what lies there.

    Raises FileNotFoundError for a missing file, and ValueError for what is no picture or another one.
    """

    path: str
    sha256: str = ""

    def __post_init__(self) -> None:
        path = Path(self.path).absolute()
        read_picture(path)
        found = sha256(path)
        if self.sha256 not in ("", found):
            raise ValueError(f"{path} is another picture than the one that was used; put that one back.")
        object.__setattr__(self, "path", str(path))
        object.__setattr__(self, "sha256", found)

    def __str__(self) -> str:
        return Path(self.path).name


def taken(source: Picture) -> PictureFile | Tensor:
    """Return a picture, whatever :func:`read_picture` reads, as a file that a record names, or [3, h, w]."""
    if isinstance(source, PictureFile | Tensor):
        return source
    return PictureFile(str(source)) if isinstance(source, str | Path) else read_picture(source)


def read_picture(source: Picture, size: int | tuple[int, int] | None = None) -> Tensor:
    """Return a picture [3, h, w] in [-1, 1], upright, in sRGB, on white; of an animation the first frame.

    Args:
        source: a file, a picture of Pillow's, an array of uint8 [h, w], [h, w, 3] or [h, w, 4], or a tensor
            [3, h, w] in [-1, 1].
        size: (height, width) in pixels, or the side of a square; cropped in the middle and resized (Lanczos).

    Raises FileNotFoundError for a missing file, and ValueError for what is no picture.
    """
    from PIL import Image, ImageOps

    if isinstance(source, PictureFile):
        source = source.path
    if isinstance(source, Tensor):
        levels = (source.detach().cpu().float().clamp(-1, 1) + 1) * 127.5
        source = levels.round().byte().permute(1, 2, 0).numpy()
    name = str(source) if isinstance(source, str | Path) else "The picture"
    try:
        picture = _rgb(_open(source))
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no picture {name}.") from None
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}.") from error
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1


def _open(source: str | Path | Image | np.ndarray[Any, Any]) -> Image:
    from PIL import Image

    if isinstance(source, Image.Image):
        return source
    if isinstance(source, str | Path):
        return Image.open(source)
    known = isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.size
    if not known or source.shape[2:] not in ((), (2,), (3,), (4,)):
        raise TypeError("an array should be of uint8, [h, w], [h, w, 3] or [h, w, 4]")
    return Image.fromarray(source)


def _rgb(picture: Image) -> Image:
    """Return a picture in sRGB, the right way up, on white."""
    from PIL import Image, ImageCms, ImageOps

    profile = picture.info.get("icc_profile")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):  # 16 bits or more a channel, which Pillow would clip at 255
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        white = 65535 if picture.mode.startswith("I") else max(1.0, float(values.max()))
        values = np.where(values == picture.info.get("transparency"), white, values)
        return Image.fromarray((values * (255 / white)).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
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
    found: dict[str, Tensor] = {}
    for prompt in prompts if folder else ():
        paths = (Path(folder or "", file_name(prompt) + ending) for ending in (".png", ".jpg", ".jpeg"))
        if path := next((path for path in paths if path.exists()), None):
            found[prompt] = read_picture(path, size)
    return found


@torch.no_grad()
def two_sizes(models: Models, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return n pictures [n, 3, h, w] and the same ones at four times the size, in [-1, 1].

    In the sticker world each scene is rendered twice; elsewhere samples of the generator are shrunk.
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
