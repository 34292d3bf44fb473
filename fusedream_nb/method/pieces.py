"""A mean over augmented copies, a few of them in memory at a time: exact, and no slower.

The mean's gradient in the picture is the sum of its pieces' gradients. Each is taken as soon as its piece
is scored, so only one piece's activations are ever held; nothing is computed twice, as gradient
checkpointing would.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .augment import Draw

Part = Callable[[Tensor, Draw], Tensor]  # pictures [n, 3, h, w] and their draws to means [n] over these


def mean_in_pieces(part: Part, image: Tensor, numbers: Draw, at_once: int) -> tuple[Tensor, int]:
    """Return the mean [n] of ``part`` over the copies of images [n, 3, h, w], and how many went at once.

    At most ``at_once`` augmented copies are in memory together, but one an image at least. Where a GPU's
    memory is too short even so, they are halved until they fit, with a warning that says so.
    Raises torch.OutOfMemoryError where one copy an image is too much.
    """
    wanted = torch.is_grad_enabled() and image.requires_grad
    while True:
        try:
            return _Mean.apply(image, part, numbers, at_once, wanted), at_once
        except torch.OutOfMemoryError:
            each = _each(len(image), numbers.copies, at_once)
            if each == 1:
                raise
            at_once = len(image) * ((each + 1) // 2)
        torch.cuda.empty_cache()
        warnings.warn(
            f"There is not enough memory for {len(image) * each} augmented copies at once; "
            f"{at_once} go at a time now, with the same result.",
            stacklevel=3,
        )


def _each(n: int, copies: int, at_once: int) -> int:
    """Return how many copies of each of n images make a piece, all pieces about as large."""
    most = max(1, min(copies, at_once // n))
    return math.ceil(copies / math.ceil(copies / most))


class _Mean(torch.autograd.Function):
    """The mean [n], whose gradient is taken on the way forwards if it is wanted."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        image: Tensor,
        part: Part,
        numbers: Draw,
        at_once: int,
        wanted: bool,
    ) -> Tensor:
        total, slope = image.new_zeros(len(image)), torch.zeros_like(image)
        for piece in numbers.split(_each(len(image), numbers.copies, at_once)):
            share = piece.copies / numbers.copies
            with torch.set_grad_enabled(wanted):
                held = image.detach().requires_grad_(wanted)
                value = part(held, piece) * share
                slope += torch.autograd.grad(value.sum(), held)[0] if wanted else 0
            total += value.detach()
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN401
        (slope,) = ctx.saved_tensors
        return outer[0][:, None, None, None] * slope, None, None, None, None
