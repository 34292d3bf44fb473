"""BigGAN and BigGAN-deep (Brock, Donahue, Simonyan, 2018), all that is constant folded into the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compute import DoublingConv, FoldedDoublingConv, MatrixConv, compute, double
from .files import compare, described_by, load_strictly, read_config, read_tensors
from .generators import ClassConditional, Latent

COARSE = 2  # blocks that draw too few pixels for a transposed convolution to pay


@dataclass(frozen=True)
class Shape:
    """The sizes of a BigGAN: ``widths`` are in units of ``channels``, before and after each block.

    The first linear layer and each block read a ``chunk`` of z of their own; the self-attention follows the
    block that draws ``attention`` pixels.
    """

    widths: tuple[int, ...]
    attention: int
    chunk: int
    channels: int = 96
    embedding: int = 128
    classes: int = 1000

    @property
    def blocks(self) -> int:
        """The number of blocks, each of which doubles the picture's side."""
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
    """Self-attention of SAGAN (Zhang et al., 2019): x + W softmax(Q Kᵀ) V, K and V at half the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1, bias=False) for _ in range(2))
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.out = nn.Conv2d(channels // 2, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Let each pixel of x [n, channels, h, w] attend to all of them."""
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
    """BigGAN's generator: z [n, layers, chunk], y [n, layers, dim] → [n, 3, size, size] in [-1, 1]."""

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
        """Return the pictures."""
        x = self.first(z[:, 0]).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        for number, block in enumerate(self.blocks, 1):
            x = block(x, torch.cat([y[:, number], z[:, number]], -1))
            if number == self.attended:
                x = self.attention(x)
        x = torch.addcmul(self.offset[:, None, None], x, self.scale[:, None, None])
        return torch.tanh(self.last(x.relu_()))


def fold(network: Network) -> None:
    """Replace convolutions, once and after the weights are loaded, by equal ones with less work."""
    first, *_ = blocks = [block for block in network.blocks if isinstance(block, Block)]
    if isinstance(first.conv2, MatrixConv):
        return
    for block in blocks[COARSE:]:
        block.conv1 = FoldedDoublingConv(block.conv1)
    first.conv1 = nn.Sequential(nn.UpsamplingNearest2d(scale_factor=2), MatrixConv(first.conv1))
    first.conv2 = MatrixConv(first.conv2)


class BigGAN(ClassConditional):
    """A BigGAN; its z is cut into a part for each layer."""

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
        """Load a folder or file that :mod:`.biggan_files` knows; ValueError for wrong keys."""
        from .biggan_files import fold, read

        network, tensors, names = read(path)
        with described_by(path, "a BigGAN"):
            folded = fold(tensors, truncation)
        embeddings, shape = folded.pop("embeddings", torch.empty(0)), network.shape
        compare({"embeddings": (shape.classes, shape.embedding)}, {"embeddings": embeddings}, path)
        load_strictly(network, folded, path)
        return cls(network, embeddings, truncation=truncation, class_names=names)

    def decode(self, latent: Latent) -> Tensor:
        """Return the pictures; of each layer's z its own part is read."""
        z, y = self.checked(latent)
        if z.ndim == 2:
            z, y = (t[:, None].expand(-1, self.layers, -1) for t in (z, y))
        parts = z.unflatten(2, (self.layers, -1)).diagonal(dim1=1, dim2=2).mT  # [n, layers, chunk]
        return compute(self, self.network, parts, y)


class DeepNorm(nn.Module):
    """BigGAN-deep's batch norm at one truncation, conditional where ``condition`` is its dimension."""

    mean: Tensor
    inverse: Tensor

    def __init__(self, channels: int, condition: int = 0) -> None:
        super().__init__()
        if condition:
            self.scale, self.offset = (nn.Linear(condition, channels, bias=False) for _ in range(2))
        else:
            self.weight, self.bias = (nn.Parameter(torch.empty(channels)) for _ in range(2))
        for name in ("mean", "inverse"):  # inverse: 1 / √(σ² + ε)
            self.register_buffer(name, torch.empty(channels))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Normalise, scale and shift each channel of x [n, channels, h, w] by a condition [n, dim]."""
        weight = self.weight[None] if condition is None else 1 + self.scale(condition)
        bias = self.bias[None] if condition is None else self.offset(condition)
        weight = weight * self.inverse
        bias = torch.addcmul(bias, weight, self.mean, value=-1)
        return torch.addcmul(bias[:, :, None, None], x, weight[:, :, None, None])


class DeepBlock(nn.Module):
    """BigGAN-deep's residual bottleneck, which may double the side and keep fewer channels."""

    def __init__(self, channels: int, width: int, condition: int, doubles: bool) -> None:
        super().__init__()
        middle = channels // 4
        self.width, self.doubles = width, doubles
        self.bn_0 = DeepNorm(channels, condition)
        self.bn_1, self.bn_2, self.bn_3 = (DeepNorm(middle, condition) for _ in range(3))
        self.conv_0, self.conv_3 = nn.Conv2d(channels, middle, 1), nn.Conv2d(middle, width, 1)
        self.conv_1, self.conv_2 = (nn.Conv2d(middle, middle, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return [n, width, h, w], or twice the side, of x [n, channels, h, w] and a condition [n, dim]."""
        change = self.conv_0(self.bn_0(x, condition).relu_())
        change = self.bn_1(change, condition).relu_()
        change = self.conv_1(double(change) if self.doubles else change)
        change = self.conv_2(self.bn_2(change, condition).relu_())
        change = self.conv_3(self.bn_3(change, condition).relu_())
        kept = x[:, : self.width]
        return change + (double(kept) if self.doubles else kept)


class DeepNetwork(nn.Module):
    """BigGAN-deep by the config.json of ``pytorch_pretrained_biggan``, under its names of tensors."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        channels, dim, attended = config["channel_width"], config["z_dim"], config["attention_layer_position"]
        self.embeddings = nn.Linear(config["num_classes"], dim, bias=False)
        self.gen_z = nn.Linear(2 * dim, 16 * 16 * channels)
        self.layers = nn.ModuleList()
        for place, (doubles, before, after) in enumerate(config["layers"]):
            if place == attended:
                self.layers.append(Attention(before * channels))
            self.layers.append(DeepBlock(before * channels, after * channels, 2 * dim, doubles))
        self.bn, self.conv_to_rgb = DeepNorm(channels), nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, first: Tensor, *rest: Tensor) -> Tensor:
        """Draw [n, 3, size, size] in [-1, 1] by a condition [n, 2 dim] for each layer."""
        x = self.gen_z(first).view(len(first), 4, 4, -1).permute(0, 3, 1, 2).contiguous()
        conditions = iter(rest)
        for layer in self.layers:
            x = layer(x, next(conditions)) if isinstance(layer, DeepBlock) else layer(x)
        return torch.tanh(self.conv_to_rgb(self.bn(x).relu_()))


class BigGANDeep(ClassConditional):
    """A BigGAN-deep by a published config.json and state dict; ValueError, with the source, for wrong keys.

    Between two truncations of the batch norms' statistics the nearer one weighs more; the package that
    published them weighs them the wrong way round.
    """

    network: DeepNetwork

    def __init__(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        *,
        truncation: float = 1.0,
        source: Path = Path("config.json"),
    ) -> None:
        from .biggan_files import deep

        with described_by(source, "a BigGAN-deep"):
            with torch.device("meta"):
                network = DeepNetwork(config)
            self.size, z_dim = int(config["output_dim"]), int(config["z_dim"])
            folded = deep(tensors, truncation, float(config["eps"]))
        load_strictly(network, folded, source)
        self.class_names = tuple(config.get("class_names", ()))
        self.layers = 1 + len(config["layers"])  # the first linear one, each block
        embeddings = network.embeddings.weight.detach().T.contiguous()
        super().__init__(network, embeddings, z_dim, truncation)

    @classmethod
    def from_path(cls, path: Path, *, truncation: float = 1.0) -> Self:
        """Load a folder, or the weights in it; FileNotFoundError, ValueError for wrong keys."""
        file = (path if path.is_dir() else path.parent) / "config.json"
        config = read_config(file)
        tensors = read_tensors(path, ("model.safetensors", "pytorch_model.bin"))
        return cls(config, tensors, truncation=truncation, source=file)

    def decode(self, latent: Latent) -> Tensor:
        """Return the pictures."""
        condition = torch.cat(self.checked(latent), -1)
        rows = [condition] * self.layers if condition.ndim == 2 else condition.unbind(1)
        return compute(self, self.network, *rows)
