"""BigGAN (Brock, Donahue, Simonyan, 2018), not the deep one: the generator that FuseDream climbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compute import compute
from .convolutions import DoublingConv, FoldedDoublingConv, MatrixConv, double
from .generators import ClassConditional, Latent

COARSE = 2  # blocks that draw too few pixels for a transposed convolution to pay


@dataclass(frozen=True)
class Shape:
    """The sizes of a BigGAN: block i takes ``widths[i]`` · ``channels`` channels to ``widths[i + 1]`` · it.

    The first linear layer and each block read a part of z of their own, of ``chunk`` numbers, so z has
    ``chunk`` · (1 + blocks); the self-attention follows the block that draws ``attention`` pixels.
    """

    widths: tuple[int, ...]
    attention: int
    chunk: int
    channels: int = 96
    embedding: int = 128
    classes: int = 1000

    @property
    def blocks(self) -> int:
        """How many blocks there are, each of which doubles the picture's side."""
        return len(self.widths) - 1

    @property
    def size(self) -> int:
        """The side of the picture in pixels."""
        return 4 * 2**self.blocks


SHAPES = {  # Table 7 to 9 of the paper
    128: Shape((16, 16, 8, 4, 2, 1), attention=64, chunk=20),
    256: Shape((16, 16, 8, 8, 4, 2, 1), attention=128, chunk=20),
    512: Shape((16, 16, 8, 8, 4, 2, 1, 1), attention=64, chunk=16),
}


class Affine(nn.Module):
    """Conditional batch norm with its statistics folded in: x · a(c) + b(c), a and b affine in c."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Scale and shift each channel of x [n, channels, h, w] by a condition [n, dim]."""
        scale, offset = self.linear(condition)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(offset, x, scale)


class Attention(nn.Module):
    """Self-attention of SAGAN (Zhang et al., 2019): x + W softmax(Q Kᵀ) V, K and V at half the side.

    The published gain is folded into W; the products are not divided by √dim.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1, bias=False) for _ in range(2))
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.out = nn.Conv2d(channels // 2, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Let each pixel of x [n, channels, h, w] look at all of them."""
        value = F.max_pool2d(self.value(x), 2).flatten(2).mT
        key = F.max_pool2d(self.key(x), 2).flatten(2).mT
        query = self.query(x).flatten(2).mT
        # Only with dimensions as many as the values' do the kernels spare the matrix of all pairs.
        wider = (0, value.shape[-1] - key.shape[-1])
        seen = F.scaled_dot_product_attention(
            F.pad(query, wider)[:, None], F.pad(key, wider)[:, None], value[:, None], scale=1.0
        )
        return x + self.out(seen[:, 0].mT.unflatten(2, x.shape[2:]))


class Block(nn.Module):
    """A residual block that doubles the side of its picture."""

    def __init__(self, channels: int, width: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = Affine(channels, condition), Affine(width, condition)
        self.conv1: Any = DoublingConv(channels, width)
        self.conv2: Any = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return [n, width, 2h, 2w] of x [n, channels, h, w] and a condition [n, dim]."""
        change = self.conv1(self.norm1(x, condition).relu_())
        change = self.conv2(self.norm2(change, condition).relu_())
        change += double(self.shortcut(x))  # a 1×1 convolution commutes with the doubling
        return change


class Network(nn.Module):
    """The generator with everything constant folded in: spectral norms, statistics, the attention's gain."""

    scale: Tensor
    offset: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        widths = [width * shape.channels for width in shape.widths]
        self.first = nn.Linear(shape.chunk, 16 * widths[0])
        condition = shape.embedding + shape.chunk
        pairs = zip(widths, widths[1:], strict=False)
        self.blocks = nn.ModuleList(Block(before, after, condition) for before, after in pairs)
        self.attended = (shape.attention // 4).bit_length() - 1  # how many blocks come before the attention
        self.attention = Attention(widths[self.attended])
        self.register_buffer("scale", torch.ones(widths[-1]))
        self.register_buffer("offset", torch.zeros(widths[-1]))
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Draw [n, 3, size, size] in [-1, 1] of each layer's z [n, layers, chunk] and y [n, layers, dim]."""
        x = self.first(z[:, 0]).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        for number, block in enumerate(self.blocks, 1):
            x = block(x, torch.cat([y[:, number], z[:, number]], -1))
            if number == self.attended:
                x = self.attention(x)
        x = torch.addcmul(self.offset[:, None, None], x, self.scale[:, None, None])
        return torch.tanh(self.last(x.relu_()))


def fold(network: Network) -> None:
    """Put convolutions in place, after the weights are loaded and once, that give the same with less work."""
    first, *_ = blocks = [block for block in network.blocks if isinstance(block, Block)]
    if isinstance(first.conv2, MatrixConv):
        return
    for block in blocks[COARSE:]:
        block.conv1 = FoldedDoublingConv(block.conv1)
    first.conv1 = nn.Sequential(nn.UpsamplingNearest2d(scale_factor=2), MatrixConv(first.conv1))
    first.conv2 = MatrixConv(first.conv2)


class BigGAN(ClassConditional):
    """A BigGAN behind the protocol of generators; its z is cut into a part for each layer.

    Loads the folders and files that :mod:`fusedream_nb.models.biggan_files` knows.
    """

    def __init__(
        self,
        network: Network,
        embeddings: Tensor,
        *,
        truncation: float = 1.0,
        class_names: Sequence[str] = (),
    ) -> None:
        shape = network.shape
        self.shape, self.size, self.layers = shape, shape.size, 1 + shape.blocks
        self.class_names = tuple(class_names)
        fold(network)
        super().__init__(network, embeddings, shape.chunk * self.layers, truncation)

    @classmethod
    def from_path(cls, path: Path, *, truncation: float = 1.0) -> Self:
        """Load a folder or a file; every key must match.

        Raises FileNotFoundError for a missing file and ValueError for missing or surplus keys.
        """
        from .biggan_files import fold, read

        shape, tensors, names = read(path)
        network = Network(shape)
        network.load_state_dict(fold(tensors, truncation))
        return cls(network, tensors["embeddings"], truncation=truncation, class_names=names)

    def decode(self, latent: Latent) -> Tensor:
        """Return the pictures [n, 3, size, size] in [-1, 1] of latents z [n, z_dim], y [n, dim].

        With z [n, layers, z_dim] and y [n, layers, dim] each of the :attr:`layers` reads its part of a
        z of its own, and a y of its own. Raises ValueError for latents of other shapes.
        """
        z, y = latent.z, latent.y
        if y is None:
            raise ValueError("A BigGAN requires a class embedding y beside z; this latent has none.")
        if z.ndim == 2:
            z, y = z[:, None].expand(-1, self.layers, -1), y[:, None].expand(-1, self.layers, -1)
        if z.shape[1:] != (self.layers, self.z_dim):
            shapes = f"[n, {self.z_dim}] or [n, {self.layers}, {self.z_dim}]"
            raise ValueError(f"This BigGAN requires latents z {shapes}, not {list(latent.z.shape)}.")
        parts = z.unflatten(2, (self.layers, -1)).diagonal(dim1=1, dim2=2).mT  # [n, layers, chunk]
        return compute(self, self.network, parts, y)
