"""Where one picture stands on another, ᾱ = (α, t) (FuseDream, §3.3): paste, crop, and Poisson blending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LaplacianNd, splu
from torch import Tensor

HORIZONTAL = {"left": 0.0, "center": 0.5, "right": 1.0}
VERTICAL = {"top": 0.0, "center": 0.5, "bottom": 1.0}


class Box(NamedTuple):
    """A rectangle of whole pixels: rows top … top + height - 1, columns left … left + width - 1."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Tensor) -> Tensor:
        """Return the box's part [..., height, width] of images [..., h, w], as a view."""
        return image[..., self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Placement:
    """A box as shares of the background, whatever its resolution: ᾱ = (α, t) (FuseDream, §3.3).

    ``alpha`` in (0, 1) is the box's width, and its height too unless ``height`` is given. ``x`` and ``y`` in
    [0, 1] are the shares of the room that is left which lie to its left and above it: 0, ½, 1 are the paper's
    left (top), center and right (bottom). Raises ValueError for numbers out of range.
    """

    alpha: float
    x: float = 0.5
    y: float = 0.5
    height: float | None = None

    def __post_init__(self) -> None:
        for name, share in (("alpha", self.alpha), ("height", self.height)):
            if share is not None and not 0 < share < 1:
                raise ValueError(f"A placement's {name} must lie between 0 and 1, not at {share}.")
        for name, share in (("x", self.x), ("y", self.y)):
            if not 0 <= share <= 1:
                raise ValueError(f"A placement's {name} must lie in [0, 1], not at {share}.")

    @classmethod
    def at(
        cls,
        alpha: float,
        x: Literal["left", "center", "right"] = "center",
        y: Literal["top", "center", "bottom"] = "center",
    ) -> Self:
        """Return the square box of size α at one of the paper's nine places t."""
        return cls(alpha, HORIZONTAL[x], VERTICAL[y])

    def box(self, height: int, width: int) -> Box:
        """Return the box in whole pixels, rounded halves up, of a height × width; a side is at least 1."""
        wide = max(1, _round(self.alpha * width))
        high = max(1, _round((self.height or self.alpha) * height))
        return Box(_round(self.y * (height - high)), _round(self.x * (width - wide)), high, wide)

    def __str__(self) -> str:
        size = f"{self.alpha:g}" if self.height is None else f"{self.alpha:g} × {self.height:g}"
        return f"{size} {_name(self.y, VERTICAL)} {_name(self.x, HORIZONTAL)}"


PLACEMENTS = tuple(  # Γ of Algorithm 2: 18 in all
    Placement(alpha, x, y) for alpha in (0.65, 0.5) for y in VERTICAL.values() for x in HORIZONTAL.values()
)


@dataclass(frozen=True)
class Placements:
    """Where the foreground may stand: one group of placements for all pictures, or one each.

    With ``keep``, only so many of each group, the best by fixed AugCLIP, go on after a quarter of the steps.
    Raises ValueError for an empty group and a ``keep`` below 1.
    """

    groups: tuple[tuple[Placement, ...], ...]
    keep: int | None = None

    def __post_init__(self) -> None:
        if not self.groups or not all(self.groups):
            raise ValueError("A composition requires at least one placement; this list is empty.")
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"At least 1 placement of a picture must be kept, not {self.keep}.")

    @classmethod
    def of(
        cls, places: Placement | Sequence[Placement] | Sequence[Sequence[Placement]], keep: int | None = None
    ) -> Self:
        """Return one placement, several for all pictures, or several for each, as Placements."""
        if isinstance(places, Placement):
            return cls(((places,),), keep)
        groups = [place if isinstance(place, Sequence) else (place,) for place in places]
        if any(isinstance(place, Placement) for place in places):
            groups = [[place for group in groups for place in group]]
        return cls(tuple(tuple(group) for group in groups), keep)

    def each(self, n: int) -> tuple[tuple[Placement, ...], ...]:
        """Return a group for each of n pictures; ValueError where there are several, and not n."""
        if len(self.groups) not in (1, n):
            raise ValueError(f"{n} pictures require one group of placements or {n}, not {len(self.groups)}.")
        return self.groups * n if len(self.groups) == 1 else self.groups


def named(text: str) -> tuple[Placement, ...]:
    """Return the placements of a text: "all", "9@0.5", "left-bottom@0.4", or some of these with commas.

    "9@α" are the paper's nine places at size α; "@0.4x0.6" is a box of another height.
    Raises ValueError for any other text.
    """
    found: list[Placement] = []
    for part in text.lower().split(","):
        place, _, size = part.strip().partition("@")
        across, _, down = place.partition("-")
        alpha, _, height = size.partition("x")
        try:
            if place == "all" and not size:
                found += PLACEMENTS
                continue
            own: dict[str, Any] = {"alpha": float(alpha), "height": float(height) if height else None}
            nine = PLACEMENTS[9:] if place == "9" else [Placement(0.5, HORIZONTAL[across], VERTICAL[down])]
            found += [replace(each, **own) for each in nine]
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"No placement is called {part.strip()!r}; say all, 9@0.5, or such as left-bottom@0.4: left, "
                "center or right, then top, center or bottom, then a size between 0 and 1."
            ) from error
    return tuple(dict.fromkeys(found))


def shrink(foreground: Tensor, box: Box) -> Tensor:
    """Resize foregrounds [n, 3, h, w] to a box's size, differentiably; antialiased, the range kept."""
    size = (box.height, box.width)
    if foreground.shape[-2:] == size:
        return foreground
    return F.interpolate(foreground, size, mode="bilinear", antialias=True)


def paste(foreground: Tensor, background: Tensor, placement: Placement | Sequence[Placement]) -> Tensor:
    """Return Fuse(I_fg, I_bg, ᾱ) [n, 3, h, w]: foregrounds, shrunk, on backgrounds (FuseDream, §3.3).

    Foregrounds [n, 3, h', w'] of any size and backgrounds [n, 3, h, w]; one placement for all, or one
    each. Differentiable in both. Raises ValueError where their numbers differ.
    """
    fused = background.clone()
    for i, place in enumerate(_each(placement, len(background))):
        box = place.box(*background.shape[-2:])
        box.cut(fused[i]).copy_(shrink(foreground[i : i + 1], box)[0])
    return fused


def crop(background: Tensor, placement: Placement | Sequence[Placement]) -> Tensor:
    """Return Crop(I_bg, ᾱ) [n, 3, box height, box width] of backgrounds [n, 3, h, w] (FuseDream, §3.3).

    One placement for all, or one each with boxes of one size. Raises ValueError for boxes of several.
    """
    boxes = [place.box(*background.shape[-2:]) for place in _each(placement, len(background))]
    if len({box[2:] for box in boxes}) > 1:
        raise ValueError("The boxes differ in size, so their crops do not stack; crop each size by itself.")
    return torch.stack([box.cut(image) for box, image in zip(boxes, background, strict=True)])


def _each(placement: Placement | Sequence[Placement], n: int) -> Sequence[Placement]:
    placements = [placement] * n if isinstance(placement, Placement) else placement
    if len(placements) != n:
        raise ValueError(f"{n} backgrounds require one placement or as many, not {len(placements)}.")
    return placements


def _round(value: float) -> int:
    return int(value + 0.5)


def _name(share: float, names: dict[str, float]) -> str:
    return next((name for name, value in names.items() if value == share), f"{share:g}")


@torch.no_grad()
def poisson(foreground: Tensor, background: Tensor, placement: Placement) -> Tensor:
    """Blend foregrounds into backgrounds: the foreground's gradients, the background's boundary.

    Foregrounds [n, 3, h', w'] of any size, backgrounds [n, 3, h, w]. The result f [n, 3, h, w] minimises
    Σ ((f_p - f_q) - (g_p - g_q))² over neighbours p, q in the box, g the foreground shrunk to it (FuseDream,
    §3.3; Pérez, Gangnet and Blake, 2003), solved exactly. Outside the box and on its rim f is the background;
    where the box's side is the picture's own border there is no rim, and f is free. Values may leave [-1, 1].
    """
    height, width = background.shape[-2:]
    box = placement.box(height, width)
    free = np.ones((box.height, box.width), bool)  # which pixels are unknown: all but the rim
    free[0] &= box.top == 0
    free[-1] &= box.top + box.height == height
    free[:, 0] &= box.left == 0
    free[:, -1] &= box.left + box.width == width
    small, blended = shrink(foreground, box), background.clone()
    if free.all():  # no rim at all: any constant fits, and the foreground's own is at hand
        return small
    if free.any():  # f = g + u, u harmonic, f the background on the rim
        laplacian = LaplacianNd(free.shape, boundary_conditions="neumann", dtype=float).tosparse().tocsr()
        inside, unknown, own = box.cut(blended), free.ravel(), small.cpu().double()
        offset = (inside.cpu().double() - own).flatten(2).flatten(0, 1).numpy().T  # u [pixels, n * 3]
        rows = laplacian[unknown]
        offset[unknown] = splu(rows[:, unknown].tocsc()).solve(-(rows[:, ~unknown] @ offset[~unknown]))
        solved = (own + torch.from_numpy(np.ascontiguousarray(offset.T)).view(own.shape)).to(inside)
        inside.copy_(torch.where(torch.from_numpy(free).to(inside.device), solved, inside))
    return blended
