"""Random augmentations π(·|I) of DiffAugment (Zhao et al., 2020), for AugCLIP (FuseDream, Eq. 3).

The plain way augments every copy at full size and then shrinks it. Here one bilinear sampling a copy,
straight at the encoder's size, does translation and resizing; the colours are an affine map of each
pixel, applied afterwards; the cutout is a mask. Same law of pictures, a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

ALL = ("colour", "translation", "resize", "cutout")
BRIGHTNESS = 0.5  # added: U(-0.5, 0.5), in the picture's own range [-1, 1]
SATURATION = (0.0, 2.0)  # factor about the pixel's grey
CONTRAST = (0.5, 1.5)  # factor about the picture's mean
TRANSLATION = 0.125  # of the side, in each direction
RESIZE = (0.8, 1.2)
CUTOUT = 0.5  # of the side

Rng = torch.Generator | Sequence[torch.Generator]


@dataclass(frozen=True)
class Draw:
    """The random numbers of a batch of augmentations, [n, copies] each: apply it twice, see the same.

    Shifts are shares of the side, positive to the right and downwards; the cutout's centre is a share
    of the side in [0, 1], and its width one too (0: none).
    """

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    shift_x: Tensor
    shift_y: Tensor
    ratio: Tensor
    cut_x: Tensor
    cut_y: Tensor
    cut: Tensor

    @property
    def copies(self) -> int:
        """Number of copies of each image."""
        return self.ratio.shape[1]

    def to(self, device: torch.device) -> Draw:
        """Move the numbers to a device."""
        return Draw(*(getattr(self, f.name).to(device) for f in fields(self)))

    def split(self, copies: int) -> list[Draw]:
        """Return the draws of so many copies of each image, and of the next ones, until there are no more."""
        parts = (getattr(self, f.name).split(copies, 1) for f in fields(self))
        return [Draw(*numbers) for numbers in zip(*parts, strict=True)]

    def expand(self, n: int) -> Draw:
        """Use the augmentations of one image for each of n images."""
        return Draw(*(getattr(self, f.name).expand(n, -1) for f in fields(self)))


def draw(n: int, copies: int, rng: Rng, policy: Collection[str] = ALL) -> Draw:
    """Draw the augmentations of n images; with a sequence of n generators, each image from its own.

    ``policy`` names which of :data:`ALL` are on, or gives each its strength in [0, 1], from none to the
    whole; a new name and a strength out of range raise ValueError.
    """
    check(copies, policy)
    strength = strengths(policy)
    if isinstance(rng, torch.Generator):
        uniform = torch.rand(n, copies, 9, generator=rng, device=rng.device)
    else:
        if len(rng) != n:
            raise ValueError(f"{n} images want {n} generators of randomness, not {len(rng)}.")
        uniform = torch.cat([torch.rand(1, copies, 9, generator=g, device=g.device) for g in rng])
    u = uniform.unbind(-1)

    def between(value: Tensor, low: float, high: float, name: str, neutral: float) -> Tensor:
        nothing = torch.full_like(value, neutral)
        return nothing.lerp(low + (high - low) * value, strength.get(name, 0.0))

    return Draw(
        brightness=between(u[0], -BRIGHTNESS, BRIGHTNESS, "colour", 0.0),
        saturation=between(u[1], *SATURATION, "colour", 1.0),
        contrast=between(u[2], *CONTRAST, "colour", 1.0),
        shift_x=between(u[3], -TRANSLATION, TRANSLATION, "translation", 0.0),
        shift_y=between(u[4], -TRANSLATION, TRANSLATION, "translation", 0.0),
        ratio=between(u[5], *RESIZE, "resize", 1.0),
        cut_x=u[6],
        cut_y=u[7],
        cut=torch.full_like(u[8], CUTOUT * strength.get("cutout", 0.0)),
    )


def check(copies: int, policy: Collection[str]) -> None:
    """Raise ValueError for fewer than one copy, an unknown augmentation, or a strength outside [0, 1]."""
    strengths(policy)
    unknown = set(policy) - set(ALL)
    if unknown:
        raise ValueError(f"Unknown augmentation {sorted(unknown)[0]!r}; known are {', '.join(ALL)}.")
    if copies < 1:
        raise ValueError(f"The number of augmented copies must be at least 1, not {copies}.")


def strengths(policy: Collection[str]) -> dict[str, float]:
    """Return the strength of each augmentation of a policy: names alone are at 1.

    Raises ValueError for a strength outside [0, 1].
    """
    found = dict(policy) if isinstance(policy, Mapping) else dict.fromkeys(policy, 1.0)
    for name, strength in found.items():
        if not 0 <= strength <= 1:
            raise ValueError(f"The strength of {name} must lie in [0, 1], not at {strength}.")
    return found


def augment(image: Tensor, numbers: Draw, size: int | None = None) -> Tensor:
    """Return the augmented copies [n * copies, 3, size, size] of images [n, 3, h, w] in [-1, 1].

    The copies of one image stand together. A picture of twice the size or more is first averaged over boxes
    of floor(side / size) pixels, so that nothing of it is missed. Empty places are 0, the grey in the middle of the range;
    colours may leave [-1, 1], as in DiffAugment. Differentiable in the image.
    """
    size = size or image.shape[-2]
    n, _, h, w = image.shape
    shrinks = min(h, w) // size
    if shrinks >= 2:  # one bilinear reading a pixel would miss what lies between
        image = F.avg_pool2d(image, shrinks)
        h, w = image.shape[-2:]
    numbers = numbers.to(image.device)
    flat = Draw(*(getattr(numbers, f.name).reshape(-1) for f in fields(numbers)))
    centre = (torch.arange(size, device=image.device) * 2 + 1) / size - 1
    grey = image.mean((1, 2, 3)).repeat_interleave(numbers.copies)
    x, frame_x, inside_x = _source(centre, flat.shift_x, flat.ratio, w)
    y, frame_y, inside_y = _source(centre, flat.shift_y, flat.ratio, h)
    grid = torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1)
    copies = image.repeat_interleave(numbers.copies, 0)
    moved = F.grid_sample(copies, grid, mode="bilinear", align_corners=False)
    moved = moved * (frame_y[:, :, None] * frame_x[:, None, :])[:, None]
    inside = (inside_y[:, :, None] * inside_x[:, None, :])[:, None]
    return _colour(moved, inside, grey, flat) * _keep(flat, size, image.device)


def _source(centre: Tensor, shift: Tensor, ratio: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return where each output pixel reads along one axis [m, size], and how far it may.

    The place is in [-1, 1]; then come its share inside the frame after resizing, and its share
    inside both the frame and the picture.

    Translation happens before resizing, so what left the frame stays outside however it is shrunk.
    Shifts are whole pixels, as in DiffAugment.
    """
    limit = int(TRANSLATION * side + 0.5)
    pixels = (shift / TRANSLATION * (limit + 0.5)).round().clamp(-limit, limit)
    frame = centre / ratio[:, None]
    place = frame - (2 * pixels / side)[:, None]
    framed = _coverage(frame, side)
    return place, framed, framed * _coverage(place, side)


def _coverage(place: Tensor, side: int) -> Tensor:
    """Return the share of a bilinear reading that lies inside an axis of ``side`` pixels."""
    pixel = ((place + 1) * side - 1) / 2
    return torch.minimum(pixel + 1, side - pixel).clamp(0, 1)


def _colour(moved: Tensor, inside: Tensor, grey: Tensor, numbers: Draw) -> Tensor:
    """Brighten, saturate, then change the contrast: one affine map of each pixel inside the frame."""
    s, c = numbers.saturation[:, None, None, None], numbers.contrast[:, None, None, None]
    constant = (1 - c) * grey[:, None, None, None] + numbers.brightness[:, None, None, None]
    own = moved.mean(1, keepdim=True)
    return c * s * moved + c * (1 - s) * own + constant * inside


def _keep(numbers: Draw, size: int, device: torch.device) -> Tensor:
    """Return the mask [m, 1, size, size] that is 0 in the square cut out of each copy."""
    wide = (numbers.cut * size + 0.5).floor()
    pixel = torch.arange(size, device=device)

    def inside(centre: Tensor) -> Tensor:
        middle = (centre * (size + 1 - wide % 2)).floor().clamp(max=size)
        low = (middle - (wide / 2).floor())[:, None]
        return (pixel >= low) & (pixel < low + wide[:, None])

    hole = inside(numbers.cut_y)[:, :, None] & inside(numbers.cut_x)[:, None, :]
    return (~hole)[:, None].float()
