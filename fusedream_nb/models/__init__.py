"""What is climbed: generators, encoders, perceptual distance, and where their weights are."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .weights import entry

if TYPE_CHECKING:
    import torch

    from .encoders import Clip
    from .generators import Generator
    from .perceptual import Perceptual

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Models:
    """Everything a run climbs on, on one device.

    ``clip`` is what a run may climb, ``judge`` is a second encoder that only ever measures.
    """

    name: str
    world: str
    generator: Generator
    clip: Clip
    judge: Clip
    perceptual: Perceptual
    device: torch.device
    dtype: torch.dtype


def resolve_device(name: str | None = None) -> torch.device:
    """Return a device by name; None reads FUSEDREAM_DEVICE, "auto" takes cuda, then mps, then cpu.

    Raises ValueError for a name that is not known or a device that is not there.
    """
    import torch

    name = name or os.environ.get("FUSEDREAM_DEVICE") or "auto"
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, here in there.items() if here)
    if name.partition(":")[0] not in there:
        raise ValueError(f"No device is called {name!r}; known are {', '.join(DEVICES)}.")
    if not there[name.partition(":")[0]]:
        raise ValueError(f"This machine has no {name} device that torch can use; take --device cpu or auto.")
    return torch.device(name)


def load(
    name: str | None = None,
    *,
    device: str | None = None,
    clip: str | None = None,
    judge: str | None = None,
    perceptual: str | None = None,
) -> Models:
    """Load a generator by name or folder, with its encoders and perceptual distance.

    ``name`` None reads FUSEDREAM_MODEL, else takes "stickers"; ``device`` is that of
    :func:`resolve_device`, and on CUDA the networks compute in bfloat16. ``clip``, ``judge`` and
    ``perceptual`` are names or folders; outside the sticker world they default to
    ViT-B-32-quickgelu, the same again, and lpips-squeeze.
    Raises ValueError for unknown names and FileNotFoundError where weights are missing.
    """
    import torch

    from .generators import BigGANDeep
    from .perceptual import Perceptual

    chosen = resolve_device(device)
    dtype = torch.bfloat16 if chosen.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    name = name or os.environ.get("FUSEDREAM_MODEL") or "stickers"
    folder = _folder(name)
    embedded = name == "stickers"
    with warnings.catch_warnings():  # torchvision's and torch's own notes on lpips' and biggan's age
        warnings.simplefilter("ignore", (UserWarning, FutureWarning))
        return Models(
            name=name,
            world="sticker world" if embedded else "",
            generator=BigGANDeep.from_folder(folder / "generator" if embedded else folder).to(chosen, dtype),
            clip=_clip(clip or ("stickers/clip" if embedded else "ViT-B-32-quickgelu")).to(chosen, dtype),
            judge=_clip(judge or ("stickers/judge" if embedded else "ViT-B-32-quickgelu")).to(chosen, dtype),
            perceptual=Perceptual.from_folder(
                folder / "lpips" if embedded and not perceptual else _folder(perceptual or "lpips-squeeze"),
                linear_heads=not embedded,
            ).to(chosen),
            device=chosen,
            dtype=dtype,
        )


def _clip(name: str) -> Clip:
    from .encoders import Clip

    shown = f"the sticker {'CLIP' if name.endswith('/clip') else 'judge'}" if "stickers/" in name else name
    return Clip.from_folder(_folder(name), name=shown)


def _folder(name: str) -> Path:
    """Return the folder of a model's weights: a local one, or that of a name in the catalogue."""
    if Path(name).is_dir() and not name.startswith("stickers"):
        return Path(name)
    head, _, tail = name.partition("/")
    return entry(head).require() / tail
