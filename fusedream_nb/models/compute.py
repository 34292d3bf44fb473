"""How networks are run: in which precision, and on how many pictures at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

PIXEL = 2048  # bytes that a BigGAN holds for a pixel of its picture, in float32 and without a gradient
CLIMBED = 16  # times as many with a gradient
COPY = 40 * 2**20  # bytes that a ViT-B/32 holds for an augmented copy with its gradient, in float32
LOSS_SCALE = 2.0**10  # of gradients in float16, whose smallest number is 6e-8


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor on its way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:  # noqa: ANN401
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return outer[0] * ctx.factor, None


class HasDtype(Protocol):
    """A generator or an encoder: what it computes in can be changed."""

    dtype: torch.dtype


def compute(owner: HasDtype, network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return ``network(*inputs)`` in float32, computed in its owner's ``dtype``.

    In float16 gradients are scaled on their way through. Where the network overflows there, its owner
    computes in float32 from then on, and a warning says so.
    """
    half = owner.dtype is torch.float16
    scaled = [_ScaleGradient.apply(x, 1 / LOSS_SCALE) for x in inputs] if half else inputs
    with torch.autocast(inputs[0].device.type, owner.dtype, enabled=owner.dtype is not torch.float32):
        out = network(*scaled).float()
    if not half:
        return out
    if bool(torch.isfinite(out).all()):
        scaled_out: Tensor = _ScaleGradient.apply(out, LOSS_SCALE)
        return scaled_out
    owner.dtype = torch.float32
    name = getattr(owner, "name", type(owner).__name__)
    warnings.warn(f"{name} overflows in float16; it computes in float32 from here on.", stacklevel=3)
    return network(*inputs).float()


def pictures_at_once(size: int, device: torch.device, *, copies: int = 0) -> int:
    """Return how many pictures are held in memory together, by what is free.

    On a CPU as many as its cache holds, else as many as keep a GPU busy and, on CUDA, as half of the
    memory that is free can hold.

    Args:
        size: their side in pixels.
        device: where they are drawn.
        copies: 0 for pictures that are looked at; for those that are climbed, with gradients, how many
            augmented copies of each an encoder reads.

    Returns:
        Two at least of those that are looked at, one of those that are climbed.
    """
    pixels = 16 * 64**2 if device.type == "cpu" else 32 * 256**2
    most = pixels // size**2
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + kept
        each = size**2 * PIXEL * (CLIMBED if copies else 1) + copies * COPY
        most = min(most, free // 2 // each)
    return max(1 if copies else 2, most)
