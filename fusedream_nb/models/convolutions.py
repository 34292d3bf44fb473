"""Convolutions that give the same numbers with less work than the plain way."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0))  # of 3 that meet one cell


class DoublingConv(nn.Conv2d):
    """A 3×3 convolution of the picture whose side is doubled, [n, channels, h, w] to [n, width, 2h, 2w]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution."""
        return super().forward(double(x))


class FoldedDoublingConv(nn.Module):
    """The doubling (nearest neighbour) and the 3×3 convolution after it as one transposed convolution.

    Each of the four pixels that a cell becomes sees 2×2 cells only. The taps that meet the same cell are
    added beforehand, so a cell costs 16 products instead of 36, and the doubled picture is never written.
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

    A CPU's convolution brings its weights into an order of its own at every call, which takes longer
    than the products where there are few pixels to share it.
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
