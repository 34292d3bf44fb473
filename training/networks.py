"""The shapes of the embedded networks, and what only their training needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from fusedream_nb.models.stickers.nouns import NOUNS

READ = 64  # pixels that the generator draws and the encoders read
SIZE = 128  # pixels of the pictures that the VQGANs learn from

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
_WIDTHS = (64, 128, 256, 384, 384, 512, 512)  # their channels


class Perceived(nn.Module):
    """LPIPS (Zhang et al., 2018) on a SqueezeNet 1.1 trunk, with a weight for each of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.squeezenet1_1().features
        self.heads = nn.ParameterList(torch.full((width,), 0.08) for width in _WIDTHS)

    def slices(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last features and the unit feature vectors [n, c, h, w] after each slice."""
        h, found = lpips_input(image), []
        for number, layer in enumerate(self.features):
            h = layer(h)
            if number in _SLICES:
                found.append(F.normalize(h.float(), dim=1, eps=1e-8))
        return h, found

    def apart(self, slices: list[Tensor]) -> Tensor:
        """Return the distances [n] of pictures whose slices [2n, c, h, w] stand one half after the other."""
        total = slices[0].new_zeros(len(slices[0]) // 2)
        for head, (x, y) in zip(self.heads, (f.chunk(2) for f in slices), strict=True):
            total = total + torch.einsum("nchw,c->nhw", (x - y).square(), head).mean((1, 2))
        return total

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the mean distance of two batches of pictures in [-1, 1]."""
        return self.apart(self.slices(torch.cat([a, b]))[1]).mean()

    @torch.no_grad()
    def positive(self) -> None:
        """Keep the heads at 0 or above, so that the distance is one."""
        for head in self.heads:
            head.clamp_(min=0)


def lpips_input(image: Tensor) -> Tensor:
    """Shift and scale pictures in [-1, 1] as the ``lpips`` package does before its trunk."""
    shift = torch.tensor([-0.030, -0.088, -0.188], device=image.device).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450], device=image.device).view(1, 3, 1, 1)
    return (image - shift) / scale
