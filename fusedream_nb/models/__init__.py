"""What is climbed: generators, encoders, perceptual distance, and where their weights are."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .weights import CLIP, JUDGE, entry

if TYPE_CHECKING:
    import torch

    from .encoders import Clip
    from .generators import Generator
    from .perceptual import Perceptual

IMAGENET = 1000  # classes
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


def resolve_dtype(device: torch.device, *, embedded: bool) -> torch.dtype:
    """Return what networks compute in: bfloat16 on CUDA and on CPUs with AMX, else float32.

    The embedded networks compute in float32 on every CPU, so that their pictures do not depend on it.
    """
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu" or embedded or not hasattr(torch.cpu, "get_capabilities"):  # older PyTorch
        return torch.float32
    return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else torch.float32


def load(
    name: str | None = None,
    *,
    device: str | None = None,
    canvas: tuple[int, int] | None = None,
    clip: str | None = None,
    judge: str | None = None,
    perceptual: str | None = None,
) -> Models:
    """Load a generator by name or local path, with its encoders and perceptual distance.

    ``name`` None reads FUSEDREAM_MODEL, else takes "stickers"; "stickers/vqgan" and
    "stickers/vqgan-painted" are the sticker world with a VQGAN. ``device`` is that of
    :func:`resolve_device`, what the networks compute in that of :func:`resolve_dtype`. ``canvas`` is the
    (height, width) in pixels that a VQGAN draws. ``clip``, ``judge`` and ``perceptual`` are names or paths
    too, CLIPs also any MODEL/TAG of open_clip; outside the sticker world they default to ViT-B-32-quickgelu
    with OpenAI's weights, RN50/openai, and lpips-squeeze. What is not here yet is fetched, see ``fetch.py``.
    Raises ValueError for unknown names, for files that are not what they should be, and for a canvas where
    the generator has but one size or cannot fill it; FileNotFoundError where weights cannot be had.
    """
    from .perceptual import Perceptual

    chosen = resolve_device(device)
    name = name or os.environ.get("FUSEDREAM_MODEL") or "stickers"
    embedded = name.partition("/")[0] == "stickers"
    dtype = resolve_dtype(chosen, embedded=embedded)
    path = _path("stickers/generator" if name == "stickers" else name)
    with warnings.catch_warnings():  # torchvision's and torch's own notes on lpips' and biggan's age
        warnings.simplefilter("ignore", (UserWarning, FutureWarning))
        return Models(
            name=name,
            world="sticker world" if embedded else "",
            generator=_generator(path, canvas, chosen, dtype),
            clip=_clip(clip or ("stickers/clip" if embedded else CLIP)).to(chosen, dtype),
            judge=_clip(judge or ("stickers/judge" if embedded else JUDGE)).to(chosen, dtype),
            perceptual=Perceptual.from_path(
                _path(perceptual or ("stickers/lpips" if embedded else "lpips-squeeze")),
                linear_heads=not embedded,
            ).to(chosen),
            device=chosen,
            dtype=dtype,
        )


def _generator(
    path: Path, canvas: tuple[int, int] | None, device: torch.device, dtype: torch.dtype
) -> Generator:
    from .biggan import BigGAN
    from .biggan_files import is_biggan
    from .classes import imagenet
    from .generators import BigGANDeep
    from .vqgan import VQGAN, is_vqgan

    if is_vqgan(path):
        return VQGAN.from_folder(path, canvas=canvas).to(device, dtype)
    if canvas is not None:
        raise ValueError("A BigGAN draws pictures of one size; a canvas is for a VQGAN.")
    kind = BigGAN.from_path if is_biggan(path) else BigGANDeep.from_folder
    generator = kind(path).to(device, dtype)
    if not generator.class_names and len(generator.embeddings) == IMAGENET:
        generator.class_names = imagenet()
    return generator


def _clip(name: str) -> Clip:
    from .encoders import Clip

    shown = f"the sticker {'CLIP' if name.endswith('/clip') else 'judge'}" if "stickers/" in name else name
    return Clip.from_folder(_path(name), name=shown)


def _path(name: str) -> Path:
    """Return where a model's weights are: a local path, or the folder of a name, fetched if need be."""
    from .convert import ready

    head, _, tail = name.partition("/")
    if head == "stickers":
        return entry(head).require() / tail
    return Path(name) if Path(name).exists() else ready(entry(name))
