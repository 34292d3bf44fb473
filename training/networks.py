"""The shapes of the embedded networks, and what only their training needs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from fusedream_nb.models.biggan import Shape
from fusedream_nb.models.stickers.captions import CONTEXT_LENGTH, VOCABULARY_SIZE
from fusedream_nb.models.stickers.nouns import NOUNS

from .law import CHUNK

SIZE = 128  # pixels that the generators draw
READ = 64  # pixels that the encoders read

_TEXT = {
    "context_length": CONTEXT_LENGTH,
    "vocab_size": VOCABULARY_SIZE,
    "width": 128,
    "heads": 4,
    "layers": 2,
}


def _resnet(width: int) -> dict[str, Any]:
    return {"layers": (1, 2, 2, 1), "width": width, "head_width": 64, "image_size": READ}


CLIP_CONFIGS: dict[str, dict[str, Any]] = {  # arguments of open_clip.CLIP
    "clip": {"embed_dim": 128, "vision_cfg": _resnet(18) | {"head_width": 32}, "text_cfg": _TEXT},
    "judge": {  # a vision transformer: 8 × 8 patches of 8 pixels keep their places to the end
        "embed_dim": 128,
        "vision_cfg": {
            "layers": 4,
            "width": 192,
            "head_width": 48,
            "patch_size": 8,
            "mlp_ratio": 3.0,
            "image_size": READ,
        },
        "text_cfg": _TEXT,
    },
    "third": {"embed_dim": 128, "vision_cfg": _resnet(14) | {"head_width": 64}, "text_cfg": _TEXT},
}
SHAPE = Shape(  # widths of 256 … 16 channels at 4 … 128 pixels
    (16, 16, 9, 5, 3, 1), attention=8, chunk=CHUNK, channels=16, embedding=64, classes=len(NOUNS)
)
# Class embeddings are this small beside N(0, I), as BigGAN's own are; training sees them at a norm of √dim.
EMBEDDING_SCALE = 0.25
VQGAN_CONFIG: dict[str, Any] = {  # arguments of diffusers' VQModel: a cell of its grid is 8 pixels wide
    "block_out_channels": (16, 48, 80, 112),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": 16,
    "vq_embed_dim": 16,
    "num_vq_embeddings": 1024,
    "norm_num_groups": 8,
    "sample_size": SIZE,
    "mid_block_add_attention": False,  # attention would tie the weights to the canvas that they saw
}
UPSCALER_CONFIG: dict[str, int] = {"width": 32, "blocks": 4}  # arguments of ResidualCNN


class Norm(nn.Module):
    """BigGAN's conditional batch norm, with the batch's own statistics in training.

    While it is ``watched``, a forward leaves in ``excess`` the mean square by which normalised features
    exceed ``BOUND``. Unless it is held down, single pixels (of the corners first) come to carry
    a channel's whole variance, and all others fall below the ReLU for good.
    """

    BOUND = 8.0

    def __init__(self, channels: int, condition: int = 0) -> None:
        super().__init__()
        self.gain, self.bias = (
            nn.Parameter(torch.zeros(channels, condition) if condition else torch.zeros(channels))
            for _ in "gb"
        )
        if condition:
            nn.init.normal_(self.gain, std=0.02)
            nn.init.normal_(self.bias, std=0.02)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.watched = False
        self.excess: Tensor | None = None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return x [n, channels, h, w] normalised, times 1 + G c, plus B c."""
        normal = F.batch_norm(x, self.mean, self.variance, training=self.training, momentum=0.05, eps=1e-4)
        self.excess = F.relu(normal.float().abs() - self.BOUND).square().mean() if self.watched else None
        if condition is None:
            return torch.addcmul(self.bias[:, None, None], normal, 1 + self.gain[:, None, None])
        scale, offset = F.linear(condition, self.gain), F.linear(condition, self.bias)
        return torch.addcmul(offset[:, :, None, None], normal, 1 + scale[:, :, None, None])


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Block(nn.Module):
    """A residual block that doubles the side of its picture (:class:`fusedream_nb.models.biggan.Block`)."""

    def __init__(self, channels: int, width: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(channels, condition), Norm(width, condition)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, width, 1)
        for layer in (self.conv1, self.conv2, self.shortcut):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if layer is self.conv1 else "linear")
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return [n, width, 2h, 2w] of x [n, channels, h, w] and a condition [n, dim]."""
        change = self.conv1(_double(F.relu(self.norm1(x, condition))))
        change = self.conv2(F.relu(self.norm2(change, condition)))
        return change + _double(self.shortcut(x))


class Attention(nn.Module):
    """Self-attention of SAGAN (Zhang et al., 2019); its gain starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1, bias=False) for _ in range(2))
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.out = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Let each pixel of x [n, channels, h, w] attend to all of them."""
        value, key = (F.max_pool2d(layer(x), 2).flatten(2).mT for layer in (self.value, self.key))
        shares = (self.query(x).flatten(2).mT @ key.mT).float().softmax(-1).to(value.dtype)
        return x + self.gain * self.out((shares @ value).mT.unflatten(2, x.shape[2:]))


class TrainableBigGAN(nn.Module):
    """The sticker generator in training: a plain BigGAN of :data:`SHAPE`, without spectral norms.

    Class embeddings are trained at a norm of about √64; :func:`exported` makes them small.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [width * SHAPE.channels for width in SHAPE.widths]
        condition = SHAPE.embedding + SHAPE.chunk
        self.embeddings = nn.Parameter(torch.randn(SHAPE.classes, SHAPE.embedding))
        self.first = nn.Linear(SHAPE.chunk, 16 * widths[0])
        pairs = zip(widths, widths[1:], strict=False)
        self.blocks = nn.ModuleList(Block(before, after, condition) for before, after in pairs)
        self.attention = Attention(widths[1])  # after the block that draws 8 pixels
        self.last_norm = Norm(widths[-1])
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        heads = {}
        for side, width in zip((16, 32, 64), widths[2:], strict=False):
            norm = nn.BatchNorm2d(width, track_running_stats=False)
            heads[str(side)] = nn.Sequential(norm, nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())
        self.heads = nn.ModuleDict(heads)  # colours while it grows; thrown away

    def forward(self, z: Tensor, y: Tensor, side: int = SIZE) -> Tensor:
        """Return pictures [n, 3, side, side] in [-1, 1] of z [n, 96] and y [n, 64] or [n, blocks, 64]."""
        first, *parts = z.unflatten(1, (-1, SHAPE.chunk)).unbind(1)
        if y.ndim == 2:
            y = y[:, None].expand(-1, len(self.blocks), -1)
        x = self.first(first).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        for number, (block, part) in enumerate(zip(self.blocks, parts, strict=True)):
            x = block(x, torch.cat([y[:, number], part], 1))
            if number == 0:
                x = self.attention(x)
            if x.shape[-1] == side and side < SIZE:
                return self.heads[str(side)](x)
        return torch.tanh(self.last(F.relu(self.last_norm(x))))

    def norms(self) -> dict[str, Norm]:
        """Return the batch norms by name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, Norm)}


def exported(model: TrainableBigGAN, statistics: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return a trained generator under the names that :mod:`fusedream_nb.models.biggan_files` reads.

    ``statistics`` are each norm's means and variances [truncations, channels]. Embeddings shrink by
    EMBEDDING_SCALE and the weights that read them grow by its inverse, so no picture changes.
    """
    tensors = {
        name: value.detach().cpu().clone()
        for name, value in model.state_dict().items()
        if not name.startswith("heads") and not name.endswith((".mean", ".variance"))
    }
    for name, (means, variances) in statistics.items():
        tensors[f"{name}.means"], tensors[f"{name}.variances"] = means.cpu(), variances.cpu()
        if name != "last_norm":
            for part in ("gain", "bias"):
                tensors[f"{name}.{part}"][:, : SHAPE.embedding] /= EMBEDDING_SCALE
    tensors["last_norm.gain"] += 1
    tensors["embeddings"] *= EMBEDDING_SCALE
    return tensors


class Discriminator(nn.Module):
    """A projection discriminator (Miyato and Koyama, 2018): pictures, classes → logits [n]."""

    GAIN = 3.0  # without it spectral norms shrink features to a hundredth, and no hinge is ever reached

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 6 * width, 8 * width]
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1))
            for a, b in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.mix = nn.ModuleList(spectral_norm(nn.Conv2d(b, b, 3, padding=1)) for b in widths)
        self.head = spectral_norm(nn.Linear(widths[-1], 1))
        self.classes = spectral_norm(nn.Embedding(len(NOUNS), widths[-1]))

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        """Return the logits [n] of images [n, 3, 128, 128] in [-1, 1] and classes [n]."""
        h = image
        for down, mix in zip(self.down, self.mix, strict=True):
            h = self.GAIN * F.leaky_relu(down(h), 0.2)
            h = h + F.leaky_relu(mix(h), 0.2)
        h = h.float().sum((2, 3)) / 4
        return self.head(h)[:, 0].float() + (h * self.classes(label)).sum(1)


class PatchDiscriminator(nn.Sequential):
    """Judges patches of 22 pixels: pictures [n, 3, h, w] in [-1, 1] → logits [n, 1, h / 4 - 1, w / 4 - 1]."""

    def __init__(self, width: int = 32) -> None:
        def layer(a: int, b: int, stride: int) -> nn.Module:
            return spectral_norm(nn.Conv2d(a, b, 4, stride=stride, padding=1))

        act = nn.LeakyReLU(0.2)
        super().__init__(layer(3, width, 2), act, layer(width, 2 * width, 2), act, layer(2 * width, 1, 1))


class Readings(nn.Module):
    """Linear readings of an embedding that speed up an encoder's training; thrown away after it."""

    def __init__(self, dim: int, sizes: dict[str, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(dim, n) for name, n in sizes.items()})

    def forward(self, embedding: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Return the sum of the losses: long targets [n] (-1: none), or multi-hot ones [n, classes]."""
        losses = []
        for name, target in targets.items():
            logits = self.heads[name](embedding)
            if target.is_floating_point():
                noun = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
                losses.append(1.5 * noun.sum(1).mean())
            else:
                losses.append(F.cross_entropy(logits, target, ignore_index=-1))
        return torch.stack(losses).sum()


_SLICES = (1, 4, 7, 9, 10, 11, 12)  # the layers of SqueezeNet 1.1 after which LPIPS looks


class Perceived(nn.Module):
    """LPIPS's distance on a SqueezeNet 1.1 trunk (Zhang et al., 2018), without linear heads."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.squeezenet1_1().features

    def slices(self, image: Tensor) -> list[Tensor]:
        """Return the unit feature vectors [n, c, h, w] after each slice, of images in [-1, 1]."""
        h, found = lpips_input(image), []
        for number, layer in enumerate(self.features):
            h = layer(h)
            if number in _SLICES:
                found.append(F.normalize(h.float(), dim=1, eps=1e-8))
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the mean distance of two batches of pictures."""
        both = self.slices(torch.cat([a, b]))
        apart = [(x - y).square().sum(1).mean((1, 2)) for x, y in (f.chunk(2) for f in both)]
        return torch.stack(apart).sum(0).mean()


def lpips_input(image: Tensor) -> Tensor:
    """Shift and scale pictures in [-1, 1] as the ``lpips`` package does before its trunk."""
    shift = torch.tensor([-0.030, -0.088, -0.188], device=image.device).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450], device=image.device).view(1, 3, 1, 1)
    return (image - shift) / scale
