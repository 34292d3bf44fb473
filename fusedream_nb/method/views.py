"""Random views of a picture, as an encoder reads them: augmented copies and cutouts.

Augmented copies are DiffAugment's (Zhao et al., 2020), for AugCLIP (FuseDream, Eq. 3); cutouts are the
patches x₁ … xₙ = S(x) that transport matches with prompts (OT prompts, Eq. 1). One bilinear sampling a view,
straight at the encoder's size, translates and resizes; the colours are an affine map of each pixel, applied
afterwards; the hole is a mask. This is the law of augmenting at full size, for a fraction of the work.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ALL = ("colour", "translation", "resize", "cutout")
TRANSLATION = 0.125  # of the side, in each direction
CUTOUT = 0.5  # of the side
LAW = {  # of each number: its augmentation, the value that changes nothing, and the ends of U(low, high)
    "brightness": ("colour", 0.0, -0.5, 0.5),  # added, in the picture's own range [-1, 1]
    "saturation": ("colour", 1.0, 0.0, 2.0),  # factor about the pixel's grey
    "contrast": ("colour", 1.0, 0.5, 1.5),  # factor about the picture's mean
    "shift_x": ("translation", 0.0, -TRANSLATION, TRANSLATION),
    "shift_y": ("translation", 0.0, -TRANSLATION, TRANSLATION),
    "ratio": ("resize", 1.0, 0.8, 1.2),
}
MIN_SIZE = 224 / 480  # of the shorter side: VQGAN+CLIP's cutouts of at least 224 of 480 pixels

Rng = torch.Generator | Sequence[torch.Generator]


class Numbers:
    """The random numbers of some views of each of n pictures: a dataclass of tensors [n, count]."""

    @property
    def count(self) -> int:
        """Number of views of each picture."""
        return next(iter(vars(self).values())).shape[1]

    def map(self, act: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to each tensor."""
        return type(self)(*map(act, vars(self).values()))

    def expand(self, n: int) -> Self:
        """Use the views of one picture for each of n pictures."""
        return self.map(lambda t: t.expand(n, -1))

    def split(self, count: int, axis: int = 1) -> list[Self]:
        """Return the numbers of so many views of each picture, or along axis 0 pictures, until the end."""
        parts = zip(*(t.split(count, axis) for t in vars(self).values()), strict=True)
        return [type(self)(*part) for part in parts]


def _uniform(n: int, count: int, numbers: int, rng: Rng) -> tuple[Tensor, ...]:
    """Return so many tensors U(0, 1) [n, count]."""
    if isinstance(rng, torch.Generator):
        return torch.rand(n, count, numbers, generator=rng, device=rng.device).unbind(-1)
    if len(rng) != n:
        raise ValueError(f"{n} images require {n} generators of randomness, not {len(rng)}.")
    return torch.cat([torch.stack(_uniform(1, count, numbers, g), -1) for g in rng]).unbind(-1)


@dataclass(frozen=True)
class Copies(Numbers):
    """The numbers of augmented copies.

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


def sample(n: int, copies: int, rng: Rng, policy: Collection[str] = ALL) -> Copies:
    """Sample augmented copies of n pictures, by one generator of randomness or one a picture.

    ``policy`` says which of :data:`ALL` are on, or the strength of each in [0, 1].
    Raises ValueError for fewer than one copy, an unknown name and a strength out of range.
    """
    check_augmentations(copies, policy)
    *u, cut_x, cut_y, cut = _uniform(n, copies, 9, rng)
    strength = {**dict.fromkeys(ALL, 0.0), **strengths(policy)}
    own = {
        name: torch.full_like(value, neutral).lerp(low + (high - low) * value, strength[augmentation])
        for value, (name, (augmentation, neutral, low, high)) in zip(u, LAW.items(), strict=True)
    }
    return Copies(**own, cut_x=cut_x, cut_y=cut_y, cut=torch.full_like(cut, CUTOUT * strength["cutout"]))


def strengths(policy: Collection[str]) -> dict[str, float]:
    """Return the strength of each augmentation of a policy: names alone are at 1."""
    return dict(policy) if isinstance(policy, Mapping) else dict.fromkeys(policy, 1.0)


def check_augmentations(copies: int, policy: Collection[str]) -> None:
    """Raise ValueError for fewer than one copy, an unknown augmentation or a strength out of range."""
    if copies < 1:
        raise ValueError(f"The number of augmented copies must be at least 1, not {copies}.")
    for name, strength in strengths(policy).items():
        if name not in ALL:
            raise ValueError(f"Unknown augmentation {name!r}; known are {', '.join(ALL)}.")
        if not 0 <= strength <= 1:
            raise ValueError(f"The strength of {name} must lie in [0, 1], not at {strength}.")


def augment(image: Tensor, numbers: Copies, size: int | None = None) -> Tensor:
    """Return the augmented copies [n * copies, 3, size, size] of images [n, 3, h, w] in [-1, 1].

    The copies of one image stand together. A picture of twice the size or more is first averaged over boxes
    of floor(side / size) pixels, so that nothing of it is missed. Empty places are 0, the grey in the middle
    of the range; colours may leave [-1, 1], as in DiffAugment. Differentiable in the image.
    """
    size = size or image.shape[-2]
    n, _, h, w = image.shape
    shrinks = min(h, w) // size
    if shrinks >= 2:  # one bilinear reading a pixel would miss what lies between
        image = F.avg_pool2d(image, shrinks)
        h, w = image.shape[-2:]
    flat = numbers.map(lambda t: t.to(image.device).reshape(-1))
    centre = (torch.arange(size, device=image.device) * 2 + 1) / size - 1
    grey = image.mean((1, 2, 3)).repeat_interleave(numbers.count)
    x, frame_x, inside_x = _source(centre, flat.shift_x, flat.ratio, w)
    y, frame_y, inside_y = _source(centre, flat.shift_y, flat.ratio, h)
    grid = torch.stack(torch.broadcast_tensors(x[:, None], y[:, :, None]), -1)
    copies = image.repeat_interleave(numbers.count, 0)
    moved = F.grid_sample(copies, grid, mode="bilinear", align_corners=False)
    moved = moved * (frame_y[:, :, None] * frame_x[:, None, :])[:, None]
    inside = (inside_y[:, :, None] * inside_x[:, None, :])[:, None]
    return _colour(moved, inside, grey, flat) * _keep(flat, size, image.device)


def _source(centre: Tensor, shift: Tensor, ratio: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return along one axis where each output pixel reads [m, size], its share in the frame, and in both.

    "Both" are the frame and the picture: what a translation moved out of the frame stays out when it shrinks.
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


def _colour(moved: Tensor, inside: Tensor, grey: Tensor, numbers: Copies) -> Tensor:
    """Brighten, saturate, then change the contrast: one affine map of each pixel inside the frame."""
    s, c = numbers.saturation[:, None, None, None], numbers.contrast[:, None, None, None]
    constant = (1 - c) * grey[:, None, None, None] + numbers.brightness[:, None, None, None]
    own = moved.mean(1, keepdim=True)
    return c * s * moved + c * (1 - s) * own + constant * inside


def _keep(numbers: Copies, size: int, device: torch.device) -> Tensor:
    """Return the mask [m, 1, size, size] that is 0 in the square cut out of each copy."""
    wide = (numbers.cut * size + 0.5).floor()
    pixel = torch.arange(size, device=device)

    def inside(centre: Tensor) -> Tensor:
        middle = (centre * (size + 1 - wide % 2)).floor().clamp(max=size)
        low = (middle - (wide / 2).floor())[:, None]
        return (pixel >= low) & (pixel < low + wide[:, None])

    hole = inside(numbers.cut_y)[:, :, None] & inside(numbers.cut_x)[:, None, :]
    return (~hole)[:, None].float()


@dataclass(frozen=True)
class Places(Numbers):
    """Where cutouts lie, for pictures of any size.

    ``side`` is a share of the picture's shorter side in (0, 1], ``x`` and ``y`` are shares in [0, 1) of
    the room that is left, to the right and downwards.
    """

    side: Tensor
    x: Tensor
    y: Tensor

    def boxes(self, height: int, width: int) -> Tensor:
        """Return left, top and side [n, count, 3] in whole pixels of a picture of some size."""
        side = (self.side * min(height, width)).floor().clamp(min=1)
        left, top = (self.x * (width - side + 1)).floor(), (self.y * (height - side + 1)).floor()
        return torch.stack([left, top, side], -1)


@dataclass(frozen=True)
class Cutouts:
    """The law of cutouts, ``count`` of each picture, their places uniform.

    A side is min_size + (1 - min_size) U of the picture's shorter side, as in VQGAN+CLIP.
    Raises ValueError for fewer than one and a min_size outside (0, 1].
    """

    count: int = 64
    min_size: float = MIN_SIZE

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"The number of cutouts must be at least 1, not {self.count}.")
        if not 0 < self.min_size <= 1:
            raise ValueError(
                f"The min_size of cutouts is a share of the side in (0, 1], not {self.min_size}."
            )

    def sample(self, n: int, rng: Rng) -> Places:
        """Sample the places of n pictures' cutouts."""
        side, x, y, _ = _uniform(n, self.count, 4, rng)  # the fourth was an angle: seeds keep their pictures
        return Places(self.min_size + (1 - self.min_size) * side, x, y)


def cut(image: Tensor, places: Places, size: int) -> Tensor:
    """Return the cutouts [n * count, 3, size, size] of pictures [n, 3, h, w], differentiably.

    The cutouts of one picture stand together. One larger than 2 * size pixels is read without antialiasing.
    """
    h, w = image.shape[-2:]
    left, top, side = places.boxes(h, w).to(image.device)[..., None].unbind(2)  # each [n, count, 1]
    step = (torch.arange(size, device=image.device) + 0.5) / size - 0.5
    x, y = left + side / 2 + step * side, top + side / 2 + step * side  # [n, count, size]
    x, y = (2 * x / w - 1)[:, :, None], (2 * y / h - 1)[..., None]
    grid = torch.stack(torch.broadcast_tensors(x, y), -1).flatten(1, 2)
    read = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
    return read.unflatten(2, (-1, size)).transpose(1, 2).reshape(-1, image.shape[1], size, size)


Part = Callable[[Tensor, Any], Tensor]  # pictures [n, 3, h, w] and numbers of views to means [n]


def chunked_mean(part: Part, image: Tensor, numbers: Numbers, at_once: int) -> tuple[Tensor, int]:
    """Return the mean [n] of ``part`` over the views of images [n, 3, h, w], and how many went at once.

    The mean's gradient in the picture is the sum of its chunks' gradients. Each is taken as soon as its chunk
    is scored, so only one chunk's activations are ever held, and nothing is computed twice. At most
    ``at_once`` augmented copies are in memory together, but one an image at least. Where a GPU's memory is
    too short even so, they are halved until they fit, with a warning.
    Raises torch.OutOfMemoryError where one copy an image is too much.
    """
    while True:
        try:
            return _mean(part, image, numbers, at_once), at_once
        except torch.OutOfMemoryError:
            each = _each(len(image), numbers.count, at_once)
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
    """Return how many copies of each of n images make a chunk, all chunks about as large."""
    most = max(1, min(copies, at_once // n))
    return math.ceil(copies / math.ceil(copies / most))


def _mean(part: Part, image: Tensor, numbers: Numbers, at_once: int) -> Tensor:
    wanted = torch.is_grad_enabled() and image.requires_grad
    total, slope = image.new_zeros(len(image)), torch.zeros_like(image)
    for piece in numbers.split(_each(len(image), numbers.count, at_once)):
        with torch.set_grad_enabled(wanted):
            held = image.detach().requires_grad_(wanted)
            value = part(held, piece) * (piece.count / numbers.count)
            if wanted:
                slope += torch.autograd.grad(value.sum(), held)[0]
        total += value.detach()
    return with_gradient(image, total, slope) if wanted else total


def with_gradient(image: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """Return values [n] of images [n, 3, h, w] whose gradient [n, 3, h, w] is known already."""
    return _WithGradient.apply(image, value, slope)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, value: Tensor, slope: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return outer[0][:, None, None, None] * ctx.saved_tensors[0], None, None
