"""R-precision: does an encoder find the caption of a picture among others (Xu et al., 2018)?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MISMATCHED = 99  # captions beside the true one, as in FuseDream's §5
REPEATS = 3  # draws of them, whose mean and standard deviation the paper reports
ROWS = 256  # pictures at a time: the memory does not grow with their number


@dataclass(frozen=True)
class Retrieval:
    """Which pictures [repeats, n] found their caption among how many candidates."""

    hits: Tensor
    candidates: int

    @property
    def mean(self) -> float:
        """The mean over the repeats of the share that found it, in [0, 1]; chance is 1 / candidates."""
        return float(self.hits.double().mean())

    @property
    def deviation(self) -> float:
        """The standard deviation of that share over the repeats; NaN for one."""
        return float(self.hits.double().mean(1).std())

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} ± {100 * self.deviation:.2f}%"


def r_precision(
    images: Tensor,
    texts: Tensor,
    rng: torch.Generator,
    *,
    mismatched: int = MISMATCHED,
    repeats: int = REPEATS,
) -> Retrieval:
    """Ask of each picture whether its own caption is nearer than all of some others, drawn at random.

    ``images`` and ``texts`` are unit vectors [n, d], of one encoder, a caption a picture; nearer is by
    their cosine, and a tie is a miss. Where there are fewer captions, all others are taken.
    Raises ValueError for shapes that do not pair and fewer than two pictures.
    """
    n = len(images)
    if images.shape != texts.shape or images.ndim != 2 or n < 2:
        shapes = f"{list(images.shape)} and {list(texts.shape)}"
        raise ValueError(f"R-precision wants two or more pictures and a caption each, [n, d]; got {shapes}.")
    others = min(mismatched, n - 1)
    own = (images * texts).sum(-1)
    hits = [
        torch.cat([_hits(images, texts, own, first, others, rng) for first in range(0, n, ROWS)])
        for _ in range(repeats)
    ]
    return Retrieval(torch.stack(hits), others + 1)


def _hits(
    images: Tensor, texts: Tensor, own: Tensor, first: int, others: int, rng: torch.Generator
) -> Tensor:
    """Say of some pictures whether they find their caption among others, none of them twice."""
    rows = torch.arange(first, min(first + ROWS, len(images)))
    drawn = torch.rand(len(rows), len(images) - 1, generator=rng).topk(others).indices
    drawn += drawn >= rows[:, None]  # all captions but the picture's own
    cosines = torch.einsum("nd,nmd->nm", images[rows], texts[drawn])
    return own[rows] > cosines.amax(1)
