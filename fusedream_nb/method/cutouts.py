"""Random patches x₁ … xₙ = S(x) of a picture, which transport matches with prompts (OT prompts, Eq. 1).

All patches of a picture are read by one bilinear sampling, straight at the encoder's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from .augment import Rng

SMALLEST = 224 / 480  # of the shorter side: VQGAN+CLIP's patches of at least 224 of 480 pixels
POWER = 1.0  # above 1: more small patches; below: more large ones


@dataclass(frozen=True)
class Places:
    """Where patches lie, for pictures of any size; tensors [n, patches].

    ``side`` is a share of the picture's shorter side in (0, 1], ``x`` and ``y`` are shares in [0, 1) of
    the room that is left, to the right and downwards; ``angle`` in radians turns a patch about its middle.
    """

    side: Tensor
    x: Tensor
    y: Tensor
    angle: Tensor

    @property
    def patches(self) -> int:
        """Number of patches of each picture."""
        return self.side.shape[1]

    def to(self, device: torch.device) -> Places:
        """Move the numbers to a device."""
        return Places(*(getattr(self, f.name).to(device) for f in fields(self)))

    def expand(self, n: int) -> Places:
        """Use the places of one picture for each of n pictures."""
        return Places(*(getattr(self, f.name).expand(n, -1) for f in fields(self)))

    def boxes(self, height: int, width: int) -> Tensor:
        """Return left, top and side [n, patches, 3] in whole pixels of a picture of some size."""
        side = (self.side * min(height, width)).floor().clamp(min=1)
        left, top = (self.x * (width - side + 1)).floor(), (self.y * (height - side + 1)).floor()
        return torch.stack([left, top, side], -1)


@dataclass(frozen=True)
class Cutouts:
    """The law of a picture's random patches, ``count`` of them.

    A side is min_size + (1 - min_size) U^power of the picture's shorter side, as in VQGAN+CLIP; its place
    is uniform; its angle is uniform within ±``rotation`` degrees.
    Raises ValueError for fewer than one patch, a min_size outside (0, 1], a power ≤ 0 or a rotation outside
    [0, 180].
    """

    count: int = 64
    min_size: float = SMALLEST
    power: float = POWER
    rotation: float = 0.0

    def __post_init__(self) -> None:
        _check(self.count, self.min_size, self.power, self.rotation)

    def draw(self, n: int, rng: Rng) -> Places:
        """Draw the places of n pictures' patches."""
        return draw(n, self.count, rng, smallest=self.min_size, power=self.power, tilt=self.rotation)


def draw(
    n: int,
    patches: int,
    rng: Rng,
    *,
    smallest: float = SMALLEST,
    power: float = POWER,
    tilt: float = 0.0,
) -> Places:
    """Draw the places of n pictures' patches; with a sequence of n generators, each picture's from its own.

    A side is smallest + (1 - smallest) U^power of the picture's shorter side, as in VQGAN+CLIP; its place
    is uniform; its angle is uniform within ±``tilt`` degrees.
    Raises ValueError for fewer than one patch, smallest outside (0, 1], power ≤ 0 or tilt outside [0, 180].
    """
    _check(patches, smallest, power, tilt)
    if isinstance(rng, torch.Generator):
        uniform = torch.rand(n, patches, 4, generator=rng, device=rng.device)
    else:
        if len(rng) != n:
            raise ValueError(f"{n} images want {n} generators of randomness, not {len(rng)}.")
        uniform = torch.cat([torch.rand(1, patches, 4, generator=g, device=g.device) for g in rng])
    side, x, y, turn = uniform.unbind(-1)
    return Places(smallest + (1 - smallest) * side**power, x, y, math.radians(tilt) * (2 * turn - 1))


def cut(image: Tensor, places: Places, size: int) -> Tensor:
    """Return the patches [n * patches, 3, size, size] of pictures [n, 3, h, w], differentiably.

    The patches of one picture stand together. What a tilted patch reads outside is the mirrored picture.
    A patch larger than 2 * size pixels is read without antialiasing.
    """
    n, channels, h, w = image.shape
    places = places.to(image.device)
    left, top, side = places.boxes(h, w)[..., None, None].unbind(2)  # each [n, patches, 1, 1]
    angle = places.angle[..., None, None]
    step = (torch.arange(size, device=image.device) + 0.5) / size - 0.5
    right, down = step[None, :] * side, step[:, None] * side
    x = left + side / 2 + right * angle.cos() - down * angle.sin()
    y = top + side / 2 + right * angle.sin() + down * angle.cos()
    grid = torch.stack([2 * x / w - 1, 2 * y / h - 1], -1).flatten(1, 2)
    read = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
    return read.unflatten(2, (-1, size)).transpose(1, 2).reshape(-1, channels, size, size)


def _check(patches: int, smallest: float, power: float, tilt: float) -> None:
    if patches < 1:
        raise ValueError(f"The number of patches must be at least 1, not {patches}.")
    if not 0 < smallest <= 1:
        raise ValueError(f"The smallest patch is a share of the shorter side in (0, 1], not {smallest}.")
    if not 0 < power < math.inf:
        raise ValueError(f"The power of the patches' sizes must be above 0, not {power}.")
    if not 0 <= tilt <= 180:
        raise ValueError(f"The tilt of patches must lie between 0 and 180 degrees, not {tilt}.")
