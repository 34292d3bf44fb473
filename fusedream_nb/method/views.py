"""Random views of a picture, as an encoder reads them: augmented copies and cutouts, behind one protocol.

Augmented copies are DiffAugment's (Zhao et al., 2020), for AugCLIP (FuseDream, Eq. 3); cutouts are the
patches x₁ … xₙ = S(x) that transport matches with prompts (OT prompts, Eq. 1). A law, such as
:class:`Augmentations`, samples numbers; the numbers read a picture, the same every time.

The plain way augments every copy at full size and then shrinks it. Here one bilinear sampling a view,
straight at the encoder's size, does translation and resizing; the colours are an affine map of each
pixel, applied afterwards; the cutout is a mask. Same law of pictures, a fraction of the work.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ALL = ("colour", "translation", "resize", "cutout")
BRIGHTNESS = 0.5  # added: U(-0.5, 0.5), in the picture's own range [-1, 1]
SATURATION = (0.0, 2.0)  # factor about the pixel's grey
CONTRAST = (0.5, 1.5)  # factor about the picture's mean
TRANSLATION = 0.125  # of the side, in each direction
RESIZE = (0.8, 1.2)
CUTOUT = 0.5  # of the side
MIN_SIZE = 224 / 480  # of the shorter side: VQGAN+CLIP's cutouts of at least 224 of 480 pixels

Rng = torch.Generator | Sequence[torch.Generator]


class Numbers:
    """The random numbers of some views of each of n pictures: a dataclass of tensors [n, count]."""

    @property
    def count(self) -> int:
        """Number of views of each picture."""
        return self._tensors()[0].shape[1]

    def read(self, image: Tensor, size: int) -> Tensor:
        """Return the views [n * count, 3, size, size] of pictures [n, 3, h, w], differentiably.

        Those of one picture stand together.
        """
        raise TypeError(f"{type(self).__name__} does not say how it reads a picture.")

    def to(self, device: torch.device) -> Self:
        """Move the numbers to a device."""
        return type(self)(*(t.to(device) for t in self._tensors()))

    def split(self, count: int) -> list[Self]:
        """Return the numbers of so many views of each picture, and of the next ones, until the end."""
        parts = (t.split(count, 1) for t in self._tensors())
        return [type(self)(*numbers) for numbers in zip(*parts, strict=True)]

    def expand(self, n: int) -> Self:
        """Use the views of one picture for each of n pictures."""
        return type(self)(*(t.expand(n, -1) for t in self._tensors()))

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, f.name) for f in fields(self)]  # type: ignore[arg-type]


def _uniform(n: int, count: int, numbers: int, rng: Rng) -> tuple[Tensor, ...]:
    """Return so many tensors U(0, 1) [n, count]."""
    if isinstance(rng, torch.Generator):
        return torch.rand(n, count, numbers, generator=rng, device=rng.device).unbind(-1)
    if len(rng) != n:
        raise ValueError(f"{n} images require {n} generators of randomness, not {len(rng)}.")
    parts = [torch.rand(1, count, numbers, generator=g, device=g.device) for g in rng]
    return torch.cat(parts).unbind(-1)


@dataclass(frozen=True)
class Draw(Numbers):
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

    def read(self, image: Tensor, size: int) -> Tensor:
        """Return the augmented copies; see :func:`augment`."""
        return augment(image, self, size)


@dataclass(frozen=True)
class Augmentations:
    """The law of augmented copies: how many, and which of :data:`ALL` are on, or at what strength in [0, 1].

    Raises ValueError for fewer than one copy, an unknown name and a strength out of range.
    """

    copies: int
    policy: Collection[str] = ALL

    def __post_init__(self) -> None:
        unknown = set(self.policy) - set(ALL)
        if unknown:
            raise ValueError(f"Unknown augmentation {sorted(unknown)[0]!r}; known are {', '.join(ALL)}.")
        for name, strength in strengths(self.policy).items():
            if not 0 <= strength <= 1:
                raise ValueError(f"The strength of {name} must lie in [0, 1], not at {strength}.")
        if self.copies < 1:
            raise ValueError(f"The number of augmented copies must be at least 1, not {self.copies}.")

    def draw(self, n: int, rng: Rng) -> Draw:
        """Sample the copies of n pictures."""
        u, strength = _uniform(n, self.copies, 9, rng), strengths(self.policy)

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


def strengths(policy: Collection[str]) -> dict[str, float]:
    """Return the strength of each augmentation of a policy: names alone are at 1."""
    return dict(policy) if isinstance(policy, Mapping) else dict.fromkeys(policy, 1.0)


def draw(n: int, copies: int, rng: Rng, policy: Collection[str] = ALL) -> Draw:
    """Sample augmented copies of n pictures; see :class:`Augmentations`."""
    return Augmentations(copies, policy).draw(n, rng)


def augment(image: Tensor, numbers: Draw, size: int | None = None) -> Tensor:
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
    numbers = numbers.to(image.device)
    flat = Draw(*(getattr(numbers, f.name).reshape(-1) for f in fields(numbers)))
    centre = (torch.arange(size, device=image.device) * 2 + 1) / size - 1
    grey = image.mean((1, 2, 3)).repeat_interleave(numbers.count)
    x, frame_x, inside_x = _source(centre, flat.shift_x, flat.ratio, w)
    y, frame_y, inside_y = _source(centre, flat.shift_y, flat.ratio, h)
    grid = torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1)
    copies = image.repeat_interleave(numbers.count, 0)
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


@dataclass(frozen=True)
class Places(Numbers):
    """Where cutouts lie, for pictures of any size.

    ``side`` is a share of the picture's shorter side in (0, 1], ``x`` and ``y`` are shares in [0, 1) of
    the room that is left, to the right and downwards; ``angle`` in radians turns a cutout about its middle.
    """

    side: Tensor
    x: Tensor
    y: Tensor
    angle: Tensor

    def boxes(self, height: int, width: int) -> Tensor:
        """Return left, top and side [n, count, 3] in whole pixels of a picture of some size."""
        side = (self.side * min(height, width)).floor().clamp(min=1)
        left, top = (self.x * (width - side + 1)).floor(), (self.y * (height - side + 1)).floor()
        return torch.stack([left, top, side], -1)

    def read(self, image: Tensor, size: int) -> Tensor:
        """Return the cutouts; see :func:`cut`."""
        return cut(image, self, size)


@dataclass(frozen=True)
class Cutouts:
    """The law of cutouts, ``count`` of each picture.

    A side is min_size + (1 - min_size) U^power of the picture's shorter side, as in VQGAN+CLIP: a power above
    1 gives more small ones. Its place is uniform; its angle is uniform within ±``rotation`` degrees.
    Raises ValueError for fewer than one, a min_size outside (0, 1], a power ≤ 0 or a rotation outside
    [0, 180].
    """

    count: int = 64
    min_size: float = MIN_SIZE
    power: float = 1.0
    rotation: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"The number of cutouts must be at least 1, not {self.count}.")
        if not 0 < self.min_size <= 1:
            raise ValueError(
                f"The min_size of cutouts is a share of the side in (0, 1], not {self.min_size}."
            )
        if not 0 < self.power < math.inf:
            raise ValueError(f"The power of the cutouts' sizes must be above 0, not {self.power}.")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"The rotation must lie between 0 and 180 degrees, not {self.rotation}.")

    def draw(self, n: int, rng: Rng) -> Places:
        """Sample the places of n pictures' cutouts."""
        side, x, y, turn = _uniform(n, self.count, 4, rng)
        side = self.min_size + (1 - self.min_size) * side**self.power
        return Places(side, x, y, math.radians(self.rotation) * (2 * turn - 1))


def cut(image: Tensor, places: Places, size: int) -> Tensor:
    """Return the cutouts [n * count, 3, size, size] of pictures [n, 3, h, w], differentiably.

    The cutouts of one picture stand together. What a tilted cutout reads outside is the mirrored picture.
    A cutout larger than 2 * size pixels is read without antialiasing.
    """
    n, channels, h, w = image.shape
    places = places.to(image.device)
    left, top, side = places.boxes(h, w)[..., None, None].unbind(2)  # each [n, count, 1, 1]
    angle = places.angle[..., None, None]
    step = (torch.arange(size, device=image.device) + 0.5) / size - 0.5
    right, down = step[None, :] * side, step[:, None] * side
    x = left + side / 2 + right * angle.cos() - down * angle.sin()
    y = top + side / 2 + right * angle.sin() + down * angle.cos()
    grid = torch.stack([2 * x / w - 1, 2 * y / h - 1], -1).flatten(1, 2)
    read = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
    return read.unflatten(2, (-1, size)).transpose(1, 2).reshape(-1, channels, size, size)


Part = Callable[[Tensor, Any], Tensor]  # pictures [n, 3, h, w] and their draws to means [n] over these


def chunked_mean(part: Part, image: Tensor, numbers: Numbers, at_once: int) -> tuple[Tensor, int]:
    """Return the mean [n] of ``part`` over the views of images [n, 3, h, w], and how many went at once.

    The mean's gradient in the picture is the sum of its chunks' gradients. Each is taken as soon as its chunk
    is scored, so only one chunk's activations are ever held; nothing is computed twice, as gradient
    checkpointing would.

    At most ``at_once`` augmented copies are in memory together, but one an image at least. Where a GPU's
    memory is too short even so, they are halved until they fit, with a warning that says so.
    Raises torch.OutOfMemoryError where one copy an image is too much.
    """
    wanted = torch.is_grad_enabled() and image.requires_grad
    while True:
        try:
            return _Mean.apply(image, part, numbers, at_once, wanted), at_once
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


class _Mean(torch.autograd.Function):
    """The mean [n], whose gradient is taken on the way forwards if it is wanted."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        image: Tensor,
        part: Part,
        numbers: Numbers,
        at_once: int,
        wanted: bool,
    ) -> Tensor:
        total, slope = image.new_zeros(len(image)), torch.zeros_like(image)
        for piece in numbers.split(_each(len(image), numbers.count, at_once)):
            share = piece.count / numbers.count
            with torch.set_grad_enabled(wanted):
                held = image.detach().requires_grad_(wanted)
                value = part(held, piece) * share
                slope += torch.autograd.grad(value.sum(), held)[0] if wanted else 0
            total += value.detach()
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN401
        (slope,) = ctx.saved_tensors
        return outer[0][:, None, None, None] * slope, None, None, None, None
