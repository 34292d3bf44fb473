"""Many prompts in one picture, by optimal transport between patches and prompts (OT prompts, Eq. 5 and 6)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusedream_nb.models import Models
from fusedream_nb.models.generators import Generator, Latent

from . import cutouts
from .budgets import Budget
from .costs import Distance, DistanceName
from .cutouts import Places
from .fuse import paired, sized
from .latents import Parameterisation, Plain, top_k
from .optimise import Step, climb
from .patches import EPSILON, PATCHES, Loss, PatchScore, Prompt

LR = 0.05  # Adam's rate in VQGAN+CLIP; the paper names none
_JUDGE_SEED = 220_408_472  # the fixed patches; any constant does


@dataclass(frozen=True)
class TransportStep(Step):
    """A Step that carries ``costs``, ``plan``, ``tangents`` [n, patches, m] and ``places``, as a Match does.

    Like ``score``, which is minus the loss, they are of the picture *before* the step, whose gradient it
    followed; at index 0, of the start with the patches that find the best picture.
    """

    costs: Tensor
    plan: Tensor
    tangents: Tensor
    places: Places


def transport(
    prompts: Prompt | Sequence[Prompt],
    models: Models,
    *,
    seed: int | Sequence[int] = 0,
    budget: str | Budget | None = None,
    steps: int | None = None,
    patches: int = PATCHES,
    loss: Loss = "transport",
    epsilon: float = EPSILON,
    distance: DistanceName | Distance = "cosine",
    lr: float = LR,
    weights: Sequence[float] | None = None,
    stop: float | Sequence[float] = -math.inf,
    smallest: float = cutouts.SMALLEST,
    power: float = cutouts.POWER,
    tilt: float = 0.0,
    M: int = 1,
    start: Latent | Parameterisation | None = None,
) -> Iterator[TransportStep]:
    """Make one picture of several prompts, texts or images, by Adam on Eq. 5 (or Eq. 1), a Step at a time.

    Several seeds run as one batch: one picture of all prompts each, the same as alone up to rounding. Each
    begins at the best of M samples (1: a random one, the paper), or at ``start``, with n latents for n
    seeds. ``steps`` None is the budget's. What shapes the loss is explained at
    :class:`~fusedream_nb.method.patches.PatchScore`.
    The picture of a run is the last Step's ``best_image`` [n, 3, h, w] in [-1, 1].
    Raises ValueError, before any work, for an empty prompt or numbers out of range.
    """
    sizes = sized(budget, steps=steps, lr=lr)
    seeds = [s for _, s in paired(["every seed takes all prompts"], seed)]
    if start is not None and M != 1:
        raise ValueError("A start is given, so there is nothing to search for; leave M at 1.")
    if M < 1:
        raise ValueError(f"The start is the best of M samples, so M must be at least 1, not {M}.")
    score = PatchScore(
        models.clip, prompts, patches, loss=loss, epsilon=epsilon, distance=distance, weights=weights,
        stop=stop, smallest=smallest, power=power, tilt=tilt,
    )  # fmt: skip
    begin = _given(start, len(seeds)) if start is not None else None
    return _run(models.generator, score, seeds, sizes.steps, lr, M, begin)


def _run(
    generator: Generator,
    score: PatchScore,
    seeds: list[int],
    steps: int,
    lr: float,
    M: int,
    start: Parameterisation | None,
) -> Iterator[TransportStep]:
    began = time.monotonic()
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    judge = score.fix(torch.Generator().manual_seed(_JUDGE_SEED))
    if start is None:
        start = Plain(Latent.cat([_sample(generator, judge, M, rng) for rng in rngs]))
    for step in climb(generator, score, start, rngs, steps=steps, lr=lr, judge=judge, began=began):
        match = score.seen or judge.seen
        assert match is not None
        yield TransportStep(
            **vars(step), costs=match.costs, plan=match.plan, tangents=match.tangents, places=match.places
        )


def _sample(generator: Generator, judge: PatchScore, M: int, rng: torch.Generator) -> Latent:
    """Return the best [1, …] of M samples; a single one is not looked at."""
    return generator.sample(1, rng) if M == 1 else top_k(generator, judge, M, 1, rng, batch=4)[0]


def _given(start: Latent | Parameterisation, n: int) -> Parameterisation:
    begin = Plain(start) if isinstance(start, Latent) else start
    there = len(begin.combine())
    if there != n:
        raise ValueError(f"{n} seeds want a start of {n} latents, not {there}.")
    return begin
