"""How networks are run: on what, in which precision, on how many pictures at once, in which threads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIXEL = 2048  # bytes that a BigGAN holds for a pixel of its picture, in float32 and without a gradient
CLIMBED = 16  # times as many with a gradient
COPY = 40 * 2**20  # bytes that a ViT-B/32 holds for an augmented copy with its gradient, in float32
LOSS_SCALE = 2.0**10  # of gradients in float16, whose smallest number is 6e-8
TAPS = ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0))  # of 3 that meet one cell

Part = TypeVar("Part")
Found = TypeVar("Found")


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

    In float16 gradients are scaled; a network that overflows computes in float32 from then on, and warns.
    """
    half = owner.dtype is torch.float16
    scaled = [_ScaleGradient.apply(x, 1 / LOSS_SCALE) for x in inputs] if half else inputs
    with torch.autocast(inputs[0].device.type, owner.dtype, enabled=owner.dtype is not torch.float32):
        out = network(*scaled).float()
    if not half:
        return out
    if bool(torch.isfinite(out).all()):
        return _ScaleGradient.apply(out, LOSS_SCALE)
    owner.dtype = torch.float32
    name = getattr(owner, "name", type(owner).__name__)
    warnings.warn(f"{name} overflows in float16; it computes in float32 from here on.", stacklevel=3)
    return network(*inputs).float()


def pictures_at_once(size: int, device: torch.device, *, copies: int = 0) -> int:
    """Return how many pictures of a side in pixels are held in memory together.

    On a CPU as many as its cache holds, else as many as keep a GPU busy and, on CUDA, as half of the free
    memory can hold. ``copies`` is 0 for pictures that are decoded (two at least), else how many augmented
    copies of each are read with gradients (one at least).
    """
    pixels = 16 * 64**2 if device.type == "cpu" else 32 * 256**2
    most = pixels // size**2
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + kept
        each = size**2 * PIXEL * (CLIMBED if copies else 1) + copies * COPY
        most = min(most, free // 2 // each)
    return max(1 if copies else 2, most)


class DoublingConv(nn.Conv2d):
    """A 3×3 convolution of the picture whose side is doubled, [n, channels, h, w] to [n, width, 2h, 2w]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution."""
        return super().forward(double(x))


class FoldedDoublingConv(nn.Module):
    """The doubling (nearest neighbour) and the 3×3 convolution after it as one transposed convolution.

    The taps that meet the same cell are added beforehand: a cell costs 16 products instead of 36.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        taps = torch.tensor(TAPS).to(conv.weight)
        weight = torch.einsum("ak,oikl,bl->ioab", taps, conv.weight.detach(), taps).flip(2, 3)
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, width, 2h, 2w] of x [n, channels, h, w]."""
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)


class MatrixConv(nn.Module):
    """A 3×3 convolution of few pixels and many channels, on a CPU as a matrix product.

    A CPU's convolution reorders its weights at every call, which takes longer than so few products.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.matrix = nn.Parameter(conv.weight.detach().flatten(1), requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, width, h, w] of x [n, channels, h, w]."""
        if x.device.type != "cpu":
            return F.conv2d(x, self.matrix.unflatten(1, (-1, 3, 3)), self.bias, padding=1)
        seen = F.linear(F.unfold(x, 3, padding=1).mT, self.matrix, self.bias)
        return seen.mT.unflatten(2, x.shape[2:])


def double(x: Tensor) -> Tensor:
    """Return a picture of twice the side, each pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def workers(device: torch.device, most: int) -> int:
    """Return how many batches go side by side, at most so many: one for each thread on a CPU, else one."""
    return min(most, torch.get_num_threads()) if device.type == "cpu" else 1


def side_by_side(act: Callable[[Part], Found], parts: Iterable[Part], count: int) -> list[Found]:
    """Return what acting on every part gives, each in a thread with one core, ``count`` at a time.

    On a CPU this is faster than all threads for one small batch. The parts must not share randomness or
    tensors. Raises what an act raises, after those under way have ended.
    """
    if count == 1:
        return [act(part) for part in parts]
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(act, parts))
    finally:
        torch.set_num_threads(before)  # what the pool's threads set is what later ones begin with


def machine() -> str:
    """Return the GPU's name and memory or, where there is none, what to do about it."""
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        return f"GPU: {gpu.name}, {gpu.total_memory / 1e9:.0f} GB"
    if torch.backends.mps.is_available():
        return "GPU: Apple's"
    click = ": choose Runtime, Change runtime type, T4 GPU" if "COLAB_RELEASE_TAG" in os.environ else ""
    return f"No GPU. The stickers need none; other models are slow without one{click}."
