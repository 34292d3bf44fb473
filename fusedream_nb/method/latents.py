"""Where a climb starts and what it moves: top-k of M samples, over-parameterised (FuseDream, §3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_nb.models.compute import pictures_at_once
from fusedream_nb.models.generators import Generator, Latent

from . import bank
from .views import Rng

Weights = Literal["scalar", "coordinate"]
Sampler = Callable[[int, torch.Generator], Latent]

SCALES = (0.25, 0.5, 1.0, 1.0)  # what a step of one moves at each level of a Pyramid, the finest first


class Parameterisation(Protocol):
    """What a climb moves, and the latent that comes of it."""

    def parameters(self) -> list[Tensor]:
        """Return everything that the climb moves."""
        ...

    def combine(self) -> Latent:
        """Return the latent [n, …], differentiably, in memory of its own."""
        ...

    def project_(self, generator: Generator) -> None:
        """Clamp what is moved to the generator's valid set, in place."""
        ...


def normal_y(generator: Generator) -> Sampler:
    """Return a law of the generator's z, and y from N(0, I) (FuseDream, Fig. 12); ValueError for no y."""

    def sample(n: int, rng: torch.Generator) -> Latent:
        latent = generator.sample(n, rng)
        if latent.y is None:
            raise ValueError("y from N(0, I) requires a generator with classes; this one has none.")
        y = torch.randn(latent.y.shape, generator=rng, device=rng.device)
        return replace(latent, y=y.to(latent.y.device))

    return sample


@torch.no_grad()
def top_k(
    generator: Generator,
    score: Callable[[Tensor, torch.Generator], Tensor],
    M: int,
    k: int,
    rng: torch.Generator,
    *,
    batch: int | None = None,
    sample: Sampler | None = None,
) -> tuple[Latent, Tensor]:
    """Draw M latents and keep the k whose pictures score highest (FuseDream, Algorithm 1, line 2).

    Returns the latents [k, …], best first, and their scores [k]; or [texts, k, …] and [texts, k] where the
    score is a table [n, texts], as :meth:`AugCLIP.table`. ``batch`` pictures are in memory at a time
    (default: :func:`pictures_at_once`), which does not change the result; ``sample`` is the law (default:
    the generator's own). Where a :mod:`.bank` serves, only its candidates are decoded.
    Raises ValueError unless 1 ≤ k ≤ M.
    """
    if not 1 <= k <= M:
        raise ValueError(f"The start keeps k of M samples, so 1 ≤ k ≤ M; got k = {k}, M = {M}.")
    if kept := None if sample else bank.vectors_of(generator, score, M, rng, batch):
        text, vectors, latents = kept
        latents = latents[bank.ranked(text, vectors, k).to(latents.z.device)]
    else:
        latents = (sample or generator.sample)(M, rng)
    batch = batch or pictures_at_once(generator.size, latents.z.device)
    parts = [latents[first : first + batch] for first in range(0, len(latents), batch)]
    scores = torch.cat([score(generator.decode(part), rng) for part in parts])
    best = scores.topk(k, dim=0)
    return latents[best.indices.movedim(0, -1)], best.values.movedim(0, -1)


def noisy(latent: Latent, std: float, rng: Rng) -> Latent:
    """Return a latent [n, …] plus noise of a standard deviation, from each run's own rng if it has one."""

    def add(t: Tensor) -> Tensor:
        if isinstance(rng, torch.Generator):
            noise = torch.randn(t.shape, generator=rng, device=rng.device)
        else:
            noise = torch.stack([torch.randn(t.shape[1:], generator=g, device=g.device) for g in rng])
        return t + std * noise.to(t.device)

    return latent.map(add)


def interpolate(first: Latent, second: Latent, alpha: Sequence[float] | Tensor) -> Latent:
    """Return α ξ₁ + (1 - α) ξ₂ [m, …] for m values α in [0, 1] (FuseDream, Appendix C).

    ``first`` and ``second`` are one latent each, [1, …]; at α = 1 and 0 they come back to the bit.
    Raises ValueError for more than one latent or an α out of range.
    """
    if len(first) != 1 or len(second) != 1:
        raise ValueError(f"Interpolation is between two single latents, not {len(first)} and {len(second)}.")
    share = torch.as_tensor(alpha, dtype=first.z.dtype, device=first.z.device)
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise ValueError(f"α must lie in [0, 1]; got {share.min():g} to {share.max():g}.")
    ends = iter(first.tensors())
    return second.map(lambda t: torch.lerp(t, next(ends), share.view(-1, *[1] * (t.ndim - 1))))


class Plain:
    """The latents [n, …] themselves (FuseDream, Eq. 2), as in Case Study 2 of the paper (§2.1, dog → cat)."""

    def __init__(self, latent: Latent) -> None:
        self.latent = latent.map(lambda t: t.detach().clone())

    def like(self, tensors: Sequence[Tensor]) -> Plain:
        """Return another, made of other tensors."""
        other = copy(self)
        other.latent = Latent(*tensors)
        return other

    def parameters(self) -> list[Tensor]:
        """Return everything that the climb moves."""
        return self.latent.tensors()

    def combine(self) -> Latent:
        """Return the latent [n, …], differentiably."""
        return self.latent.map(lambda t: t.clone())

    @torch.no_grad()
    def project_(self, generator: Generator) -> None:
        """Clamp the latent to the generator's valid set, in place."""
        _project_(self.latent, generator)


def _project_(latent: Latent, generator: Generator) -> None:
    for mine, valid in zip(latent.tensors(), generator.project(latent).tensors(), strict=True):
        mine.copy_(valid)


@dataclass
class OverParameterised:
    """Σ wᵢ ξᵢ over k basis latents (FuseDream, Eq. 4), for n runs at once.

    ``basis`` holds tensors [n, k, …]. ``weights`` are scalars wᵢ [n, k] that start at 1/k, as in the
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
        """Begin at basis latents [n, k, …]: at their mean, or at random logits, each run's from its rng."""
        basis = basis.map(lambda t: t.detach().clone())
        n, k = basis.z.shape[:2]
        if kind == "scalar":
            return cls(basis, [torch.full((n, k), 1 / k, device=basis.z.device)])
        logits = basis.map(lambda t: torch.stack([torch.randn(t.shape[1:], generator=g) for g in rng]).to(t))
        return cls(basis, logits.tensors(), softmax=True)

    @classmethod
    def of(cls, tensors: Sequence[Tensor], kind: Weights = "scalar") -> OverParameterised:
        """Return the over-parameterisation whose :meth:`parameters` these are."""
        count = 1 if kind == "scalar" else len(tensors) // 2
        return cls(Latent(*tensors[:-count]), list(tensors[-count:]), softmax=kind == "coordinate")

    def like(self, tensors: Sequence[Tensor]) -> OverParameterised:
        """Return another of the same kind, made of other tensors."""
        return self.of(tensors, "coordinate" if self.softmax else "scalar")

    def parameters(self) -> list[Tensor]:
        """Return everything that the climb moves."""
        return [*self.basis.tensors(), *self.weights]

    def combine(self) -> Latent:
        """Return Σ wᵢ ξᵢ [n, …], differentiably."""
        if self.softmax:
            weights = iter(w.softmax(1) for w in self.weights)
            return self.basis.map(lambda t: (next(weights) * t).sum(1))
        scalars = self.weights[0]
        return self.basis.map(lambda t: (scalars.view(*scalars.shape, *[1] * (t.ndim - 2)) * t).sum(1))

    @torch.no_grad()
    def project_(self, generator: Generator) -> None:
        """Clamp each basis latent to the generator's valid set, in place."""
        _project_(self.basis, generator)


class Pyramid:
    """Latents z [n, dim, h, w] as their start plus grids of h × w, h/2 × w/2, … cells, each enlarged.

    Adam moves every number by about its rate, so what many fine cells must do together it does slowly and
    roughly. A coarse cell does it in one step; :data:`SCALES` damp the fine ones. Any z can still be reached.
    Raises ValueError for a latent that is no grid.
    """

    def __init__(self, start: Latent) -> None:
        if start.z.ndim != 4:
            raise ValueError(f"A pyramid requires latents z [n, dim, h, w], not {list(start.z.shape)}.")
        self.start, (n, dim, h, w) = start.map(Tensor.detach), start.z.shape
        self.levels = [start.z.new_zeros(n, dim, max(1, h >> k), max(1, w >> k)) for k in range(len(SCALES))]

    def parameters(self) -> list[Tensor]:
        """Return the grids, the finest first."""
        return self.levels

    def combine(self) -> Latent:
        """Return the latents [n, dim, h, w]."""
        size = self.start.z.shape[-2:]
        grown = [F.interpolate(level, size, mode="bilinear") for level in self.levels]
        moved = sum((scale * grid for scale, grid in zip(SCALES, grown, strict=True)), self.start.z)
        return Latent(moved, self.start.y)

    @torch.no_grad()
    def project_(self, generator: Generator) -> None:
        """Clamp the latents to the generator's valid set; the finest grid takes what that changes."""
        latent = self.combine()
        self.levels[0].add_((generator.project(latent).z - latent.z) / SCALES[0])
