"""Which nouns are in a picture: what the judge reads beside its cosines, by a small network of its own.

A vector for a whole picture says little of its second object. Here each part of a picture votes for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusedream_nb.models.files import load_strictly, read_tensors

from .nouns import NOUNS

SIZES = (64, 80)  # pixels of a picture's shorter side, at which it is read


class Presence(nn.Module):
    """A ResNet (He et al., 2016) whose cells vote: pictures [n, 3, h, w] in [-1, 1] → logits [n, 28].

    A noun's logit is log Σ exp over the cells' votes for it, so one cell that sees it is enough.
    """

    def __init__(
        self,
        widths: Sequence[int] = (24, 48, 96, 128),
        strides: Sequence[int] = (2, 2, 1),
        classes: int = len(NOUNS),
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolution(3, widths[0], 2), nn.ReLU())
        for a, b, stride in zip(widths, widths[1:], strides, strict=False):
            self.features.append(_Block(a, b, stride))
        self.votes = nn.Conv2d(widths[-1], classes, 1)

    def cells(self, image: Tensor, size: int = SIZES[0]) -> Tensor:
        """Return the votes [n, classes, cells] of every cell, the picture's shorter side ``size`` pixels."""
        scale = size / min(image.shape[-2:])
        if scale != 1:
            sides = [round(side * scale) for side in image.shape[-2:]]
            image = F.interpolate(image, sides, mode="bicubic", antialias=True).clamp(-1, 1)
        votes: Tensor = self.votes(self.features(image))
        return votes.flatten(2).float()

    def forward(self, image: Tensor, size: int = SIZES[0]) -> Tensor:
        """Return the logits [n, classes], the picture's shorter side ``size`` pixels."""
        return self.cells(image, size).logsumexp(2)

    @torch.no_grad()
    def read(self, image: Tensor) -> Tensor:
        """Return the logits [n, classes] of many pictures, a hundred at a time, on the CPU.

        They are the mean over both sizes, of the picture and of its mirror image.
        """
        found = []
        for part in image.to(self.votes.weight).split(100):
            views = [self(seen, size) for size in SIZES for seen in (part, part.flip(-1))]
            found.append(torch.stack(views).mean(0))
        return torch.cat(found).cpu()


class _Block(nn.Module):
    """Two convolutions beside one that only changes the size."""

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(a, b, stride)
        self.conv2, self.bn2 = _convolution(b, b, 1)
        self.downsample = nn.Sequential(*_convolution(a, b, stride))

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(h + self.downsample(x))


def _convolution(a: int, b: int, stride: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(a, b, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(b)


def load_presence(path: Path) -> Presence:
    """Return the network whose weights are in a file; ValueError where it is another's."""
    network = Presence()
    load_strictly(network, read_tensors(path, ()), path)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
