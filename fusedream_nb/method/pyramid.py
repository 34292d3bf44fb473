"""A grid of codes as a sum of coarser and finer grids, so that a climb moves what is large first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_nb.models.generators import Generator, Latent

SCALES = (0.25, 0.5, 1.0, 1.0)  # what a step of one moves at each level, the finest first


class Pyramid:
    """Latents z [n, dim, h, w] as their start plus grids of h × w, h/2 × w/2, … cells, each enlarged.

    Adam moves every number by about its rate, so what many fine cells must do together it does slowly and
    roughly. A coarse cell does it in one step; ``scales`` damp the fine ones. Any z can still be reached.
    Raises ValueError for a latent that is no grid, and unless every scale is above zero.
    """

    def __init__(self, start: Latent, scales: Sequence[float] = SCALES) -> None:
        if start.z.ndim != 4:
            raise ValueError(f"A pyramid wants latents z [n, dim, h, w], not {list(start.z.shape)}.")
        if not scales or not all(scale > 0 for scale in scales):
            raise ValueError("Every level of a pyramid wants a scale above 0.")
        self.start, self.scales = start.map(torch.Tensor.detach), tuple(scales)
        n, dim, h, w = start.z.shape
        self.levels = [start.z.new_zeros(n, dim, max(1, h >> k), max(1, w >> k)) for k in range(len(scales))]

    def parameters(self) -> list[Tensor]:
        """Return the grids, the finest first."""
        return self.levels

    def combine(self) -> Latent:
        """Return the latents [n, dim, h, w]."""
        size = self.start.z.shape[-2:]
        grown = [F.interpolate(level, size, mode="bilinear") for level in self.levels]
        moved = sum((scale * grid for scale, grid in zip(self.scales, grown, strict=True)), self.start.z)
        return Latent(moved, self.start.y)

    @torch.no_grad()
    def project_(self, generator: Generator) -> None:
        """Clamp the latents to the generator's valid set; the finest grid takes what that changes."""
        latent = self.combine()
        self.levels[0].add_((generator.project(latent).z - latent.z) / self.scales[0])
