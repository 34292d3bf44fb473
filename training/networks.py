"""The shapes of the embedded networks, and what only their training needs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from fusedream_nb.models.stickers.captions import CONTEXT_LENGTH, VOCABULARY_SIZE
from fusedream_nb.models.stickers.nouns import NOUNS

READ = 64  # pixels that the generator draws and the encoders read
SIZE = 128  # pixels that the VQGANs draw

THIRD_CONFIG: dict[str, Any] = {  # arguments of open_clip.CLIP
    "embed_dim": 128,
    "vision_cfg": {"layers": (1, 2, 2, 1), "width": 14, "head_width": 64, "image_size": READ},
    "text_cfg": {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": VOCABULARY_SIZE,
        "width": 128,
        "heads": 4,
        "layers": 2,
    },
}
VQGAN_CONFIG: dict[str, Any] = {  # arguments of diffusers' VQModel: a cell of its grid is 8 pixels wide
    "block_out_channels": (16, 40, 72, 96),
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
