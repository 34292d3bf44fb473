"""Where a climb starts and what it moves: top-k of M samples, over-parameterised (FuseDream, §3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fusedream_nb.models.generators import Generator, Latent

from .scores import Score

Weights = Literal["scalar", "coordinate"]


@torch.no_grad()
def top_k(
    generator: Generator, score: Score, M: int, k: int, rng: torch.Generator, *, batch: int | None = None
) -> tuple[Latent, Tensor]:
    """Draw M latents and keep the k whose pictures score highest (FuseDream, Algorithm 1, line 2).

    Returns the latents [k, …], best first, and their scores [k]. Only ``batch`` pictures are in memory
    at a time (default: as many as 64 of 64 pixels); how many does not change the result.
    Raises ValueError unless 1 ≤ k ≤ M.
    """
    if not 1 <= k <= M:
        raise ValueError(f"The start keeps k of M samples, so 1 ≤ k ≤ M; got k = {k}, M = {M}.")
    batch = batch or max(2, 64 * 64**2 // generator.size**2)
    latents = generator.sample(M, rng)
    parts = [latents[first : first + batch] for first in range(0, M, batch)]
    scores = torch.cat([score(generator.decode(part), rng) for part in parts])
    best = scores.topk(k)
    return latents[best.indices], best.values


@dataclass
class OverParameterised:
    """Σ wᵢ ξᵢ over k basis latents (FuseDream, Eq. 4), for n runs at once.

    ``basis`` holds tensors [n, k, dim]. ``weights`` are scalars wᵢ [n, k] that start at 1/k, as in the
    paper; or one logit a coordinate, [n, k, dim] for each tensor of the basis, softmaxed over k, as in
    the authors' code.
    """

    basis: Latent
    weights: list[Tensor]
    softmax: bool = False

    @classmethod
    def start(
        cls, basis: Latent, kind: Weights = "scalar", rng: Sequence[torch.Generator] = ()
    ) -> OverParameterised:
        """Begin at basis latents [n, k, dim]: at their mean, or at random logits, each run's from its rng."""
        basis = basis.map(lambda t: t.detach().clone())
        n, k, _ = basis.z.shape
        if kind == "scalar":
            return cls(basis, [torch.full((n, k), 1 / k, device=basis.z.device)])
        logits = [
            torch.stack([torch.randn(t.shape[1:], generator=g) for g in rng]).to(t.device)
            for t in basis.tensors()
        ]
        return cls(basis, logits, softmax=True)

    def parameters(self) -> list[Tensor]:
        """Return everything that the climb moves."""
        return [*self.basis.tensors(), *self.weights]

    def combine(self) -> Latent:
        """Return Σ wᵢ ξᵢ [n, dim], differentiably."""
        if self.softmax:
            weights = iter(w.softmax(1) for w in self.weights)
            return self.basis.map(lambda t: (next(weights) * t).sum(1))
        return self.basis.map(lambda t: (self.weights[0][..., None] * t).sum(1))

    @torch.no_grad()
    def project_(self, generator: Generator) -> None:
        """Clamp each basis latent to the generator's valid set, in place."""
        clamped = generator.project(self.basis)
        for mine, valid in zip(self.basis.tensors(), clamped.tensors(), strict=True):
            mine.copy_(valid)
