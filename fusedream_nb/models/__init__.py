"""Generators, encoders, perceptual distance, and where their weights are."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .weights import CLIP, JUDGE, entry

if TYPE_CHECKING:
    import torch

    from .biggan import BigGAN, BigGANDeep
    from .encoders import Clip
    from .generators import Generator
    from .perceptual import Perceptual
    from .vqgan import VQGAN

KINDS = (".ckpt", ".pt", ".pth", ".safetensors", ".bin")  # of files that hold a generator
DEVICES = ("auto", "cpu", "cuda", "mps")


class Later:
    """Something that is made when it is first asked for, and once, whichever thread asks."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make, self.made, self.lock = make, None, threading.RLock()

    def __call__(self) -> Any:  # noqa: ANN401
        """Return what is made."""
        with self.lock:
            if self.made is None:
                self.made = self.make()
            return self.made


@dataclass(frozen=True)
class Models:
    """Generator, encoders and perceptual distance of a run, on one device.

    ``clip`` is what a run may climb; ``judge`` is a second encoder that only measures. A :class:`Later` is
    made when it is first read.
    """

    name: str
    world: str
    generator: Generator
    clip: Clip
    judge: Clip
    perceptual: Perceptual
    device: torch.device
    dtype: torch.dtype

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401
        value = super().__getattribute__(name)
        return value() if isinstance(value, Later) else value


def resolve_device(name: str | torch.device | None = None) -> torch.device:
    """Return a device by name; None reads FUSEDREAM_DEVICE, "auto" takes cuda, then mps, then cpu.

    Raises ValueError for an unknown name and for a device that torch cannot use here.
    """
    import torch

    name = str(name or os.environ.get("FUSEDREAM_DEVICE") or "auto")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, here in there.items() if here)
    kind = name.partition(":")[0]
    if kind not in there:
        raise ValueError(f"No device is called {name!r}; known are {', '.join(DEVICES)}.")
    if not there[kind]:
        raise ValueError(f"This machine has no {name} device that torch can use; take --device cpu or auto.")
    return torch.device(name)


def resolve_dtype(device: torch.device, *, embedded: bool) -> torch.dtype:
    """Return what networks compute in: bfloat16 where it is native (on a CPU: AMX), float16 on older GPUs.

    The embedded networks compute in float32 on every CPU, so that their pictures do not depend on it.
    """
    import torch

    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type != "cpu" or embedded or not hasattr(torch.cpu, "get_capabilities"):  # older PyTorch
        return torch.float32
    return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else torch.float32


def load(
    name: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    canvas: tuple[int, int] | None = None,
    clip: str | Path | None = None,
    judge: str | Path | None = None,
    perceptual: str | Path | None = None,
) -> Models:
    """Load a generator by name or local path, with its encoders and perceptual distance.

    What is missing is fetched (:mod:`.fetch`); the judge and the perceptual distance are loaded when first
    used. Outside the sticker world CLIP is OpenAI's ViT-B-32-quickgelu, as in both papers, and the judge a
    ViT-B-32 trained on LAION-2B: OpenAI's other CLIPs share the blind spots of the one that is climbed.

    Args:
        name: a name of ``fusedream-nb models``, a folder or a file; None reads FUSEDREAM_MODEL, else takes
            "stickers". "stickers/vqgan" and "stickers/vqgan-painted" are the sticker world with a VQGAN.
        device: that of :func:`resolve_device`; see :func:`resolve_dtype` for the precision.
        canvas: the (height, width) in pixels that a VQGAN draws.
        clip: a name, a path, or any MODEL/TAG of open_clip.
        judge: the same.
        perceptual: a name or a path (default: lpips-squeeze).

    Raises ValueError for unknown names, wrong files, and a canvas that the generator cannot draw;
    FileNotFoundError where weights cannot be had.
    """
    chosen = resolve_device(device)
    name = str(name or os.environ.get("FUSEDREAM_MODEL") or "stickers")
    embedded = name.partition("/")[0] == "stickers"
    dtype = resolve_dtype(chosen, embedded=embedded)

    def encoder(name: str | Path) -> Clip:
        return _clip(str(name)).to(chosen, dtype)

    def distance() -> Perceptual:
        from .perceptual import Perceptual

        path = _path(str(perceptual or ("stickers/lpips" if embedded else "lpips-squeeze")))
        with warnings.catch_warnings():  # torchvision's own notes on lpips' age
            warnings.simplefilter("ignore", (UserWarning, FutureWarning))
            return Perceptual.from_path(path).to(chosen)

    place = _path("stickers/generator" if name == "stickers" else name)
    return Models(
        name=name,
        world="sticker world" if embedded else "",
        generator=_generator(place, canvas).to(chosen, dtype),
        clip=encoder(clip or ("stickers/clip" if embedded else CLIP)),
        judge=cast("Clip", Later(lambda: encoder(judge or ("stickers/judge" if embedded else JUDGE)))),
        perceptual=cast("Perceptual", Later(distance)),
        device=chosen,
        dtype=dtype,
    )


def _generator(
    path: Path, canvas: tuple[int, int] | None = None, truncation: float = 1.0
) -> BigGAN | BigGANDeep | VQGAN:
    from .biggan import BigGAN, BigGANDeep
    from .biggan_files import is_biggan
    from .generators import IMAGENET, imagenet
    from .vqgan import VQGAN, is_vqgan

    if path.is_file() and path.suffix not in KINDS:
        raise ValueError(f"{path} is no generator; a file of one ends in {', '.join(KINDS)}.")
    if is_vqgan(path):
        return VQGAN.from_folder(path, canvas=canvas)
    if canvas is not None:
        raise ValueError("A BigGAN draws pictures of one size; a canvas is for a VQGAN.")
    kind = BigGAN if is_biggan(path) else BigGANDeep
    generator = kind.from_path(path, truncation=truncation)
    if not generator.class_names and len(generator.embeddings) == IMAGENET:
        generator.class_names = imagenet()
    return generator


def _clip(name: str) -> Clip:
    from .encoders import Clip

    shown = f"the sticker {'CLIP' if name.endswith('/clip') else 'judge'}" if "stickers/" in name else name
    return Clip.from_folder(_path(name), name=shown)


def _path(name: str) -> Path:
    """Return a local path, or the folder of a name, fetched if need be."""
    head, _, tail = name.partition("/")
    if head == "stickers":
        return entry(head).require() / tail
    if Path(name).exists():
        return Path(name)
    from .fetch import fetch

    return fetch(entry(name))
