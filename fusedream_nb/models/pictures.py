"""Pictures from outside, as a viewer shows them: the one reader for references, prompts and starts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

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
