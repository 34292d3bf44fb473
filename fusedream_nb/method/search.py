"""BasinCMA, the rival optimiser: evolution outside, descent inside (FuseDream, Appendix C, Fig. 17).

After Wampler and Popović (2009), as Huh et al. (2020) use it on BigGAN.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cma
import numpy as np
import torch
from torch import Tensor

from fusedream_nb.models.generators import Generator, Latent

from .optimise import Step, climb
from .scores import Score

SAMPLES = 4096  # latents from which the generator's law is read; none of them is decoded
SHARE = 930 / 1231  # of all work that goes into the mega-steps, as in 30 · 31 + 301


@dataclass(frozen=True)
class Schedule:
    """How much work a search does; the numbers are those of Huh et al. (2020).

    Each of ``mega_steps`` descends from ``population`` samples by ``inner_steps`` of Adam; then a last
    population descends by ``final_steps``.
    """

    mega_steps: int = 30
    inner_steps: int = 30
    final_steps: int = 300
    population: int = 18

    def __post_init__(self) -> None:
        if min(self.mega_steps, self.inner_steps, self.final_steps) < 0 or self.population < 4:
            raise ValueError(f"A search wants steps of 0 or more and a population of at least 4, not {self}.")

    @property
    def rounds(self) -> int:
        """How often the whole population is decoded."""
        return self.mega_steps * (self.inner_steps + 1) + self.final_steps + 1

    @property
    def evaluations(self) -> int:
        """Pictures that the generator draws in a search."""
        return self.rounds * self.population

    @classmethod
    def within(cls, evaluations: int, population: int = 18) -> Schedule:
        """Return the schedule of the default's proportions that fills a number of generator evaluations.

        It is less than one population short of them: 930 of 1,231 rounds are mega-steps, as many of
        them as each is long. Raises ValueError where there is no round for each population.
        """
        rounds = evaluations // population
        if rounds < 2:
            raise ValueError(f"{evaluations} evaluations are too few for two populations of {population}.")
        outer = min(max(1, round(SHARE * rounds)), rounds - 1)
        length = min(outer, round(outer**0.5 + 0.25))  # 31 of 930
        mega_steps = outer // length
        return cls(mega_steps, length - 1, rounds - mega_steps * length - 1, population)


def basin_cma(
    generator: Generator,
    score: Score,
    rng: torch.Generator,
    schedule: Schedule = Schedule(),  # noqa: B008  frozen
    *,
    sigma: float = 1.0,
    lr: float = 0.05,
    judge: Score | None = None,
) -> Iterator[Step]:
    """Maximise a score by BasinCMA (FuseDream, Appendix C), a Step for each decoding of the population.

    CMA-ES asks for a population, which is clamped to the generator's valid set; Adam climbs from it;
    CMA-ES is told of the points where the climbs began, with the scores where they *ended*. Both search
    :class:`Law` coordinates, in which the generator's own law is N(0, I).
    A Step shows one picture [1, 3, h, w], the one of the population that has reached the most, and the
    best of all so far, by the ``judge`` (default: the score). Its knobs count ``mega_step`` and the
    generator's ``evaluations`` so far, and tell CMA's ``sigma``.
    Raises FloatingPointError when the score is no longer a finite number.
    """
    began, judge = time.monotonic(), judge or score
    law = Law.of(generator, rng)
    strategy = _strategy(law.dim, sigma, schedule.population, rng)
    best: Step | None = None
    done = 0
    for mega_step in range(schedule.mega_steps + 1):
        asked = strategy.ask()
        start = _Whitened(law, torch.as_tensor(np.stack(asked), dtype=law.mean.dtype, device=law.mean.device))
        steps = schedule.inner_steps if mega_step < schedule.mega_steps else schedule.final_steps
        start.project_(generator)
        # Told of the points beyond the clamp, CMA would walk off where all pictures are the same.
        begun = list(start.x.double().cpu().numpy())
        for inner in climb(generator, score, start, rng, steps=steps, lr=lr, judge=judge, began=began):
            done += 1
            step = _first(inner)
            best = step if best is None or bool(step.best_score > best.best_score) else best
            counted = {"mega_step": mega_step, "evaluations": done * schedule.population}
            yield replace(
                step,
                index=done - 1,
                total=schedule.rounds - 1,
                best_image=best.best_image,
                best_score=best.best_score,
                knobs={**step.knobs, **counted, "sigma": float(strategy.sigma)},
            )
        if mega_step < schedule.mega_steps:
            with torch.no_grad():
                strategy.tell(begun, (-judge(inner.image, rng)).tolist())


def _first(step: Step) -> Step:
    """Return the one row of a population's Step that has reached the most."""
    i = int(step.best_score.argmax())
    row = slice(i, i + 1)
    return replace(
        step,
        image=step.image[row],
        score=step.score[row],
        best_image=step.best_image[row],
        best_score=step.best_score[row],
        latent=step.latent[row],
    )


def _strategy(dim: int, sigma: float, population: int, rng: torch.Generator) -> cma.CMAEvolutionStrategy:
    """Return a CMA-ES at 0 that writes no files and takes its randomness from rng alone."""

    def randn(*shape: int) -> np.ndarray:
        return torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float64).cpu().numpy()

    options = {"popsize": population, "randn": randn, "seed": np.nan, "verbose": -10, "verb_log": 0}
    return cma.CMAEvolutionStrategy(np.zeros(dim), sigma, options)


@dataclass(frozen=True)
class Law:
    """The generator's own law of latents to second order: ξ = mean + x A is like it where x ~ N(0, I).

    ``mean`` [d] and ``axes`` A [dim, d] are those of the latent's tensors side by side. Directions
    in which the latents do not spread, as across the classes' plane, are left out, so dim ≤ d.
    """

    mean: Tensor
    axes: Tensor
    pattern: Latent

    @classmethod
    def of(cls, generator: Generator, rng: torch.Generator, samples: int = SAMPLES) -> Law:
        """Read the law off samples; nothing is decoded."""
        latents = generator.sample(samples, rng)
        flat = _flat(latents)
        mean = flat.mean(0)
        _, spread, directions = torch.linalg.svd((flat - mean) / samples**0.5, full_matrices=False)
        kept = spread > 1e-4 * spread[0]
        return cls(mean, spread[kept, None] * directions[kept], latents[:1])

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.axes)

    def latent(self, x: Tensor) -> Latent:
        """Return the latents of coordinates x [n, dim], differentiably."""
        sizes = [t[0].numel() for t in self.pattern.tensors()]
        parts = iter((self.mean + x @ self.axes).split(sizes, 1))
        return self.pattern.map(lambda t: next(parts).view(-1, *t.shape[1:]))

    def coordinates(self, latent: Latent) -> Tensor:
        """Return the coordinates [n, dim] of latents; the nearest, where they leave the law's plane."""
        return (_flat(latent) - self.mean) @ (self.axes / self.axes.square().sum(1, keepdim=True)).T


def _flat(latent: Latent) -> Tensor:
    return torch.cat([t.flatten(1) for t in latent.tensors()], 1)


class _Whitened:
    """Latents given by their coordinates x [n, dim], so that one rate suits all of them."""

    def __init__(self, law: Law, x: Tensor) -> None:
        self.law, self.x = law, x

    def parameters(self) -> list[Tensor]:
        return [self.x]

    def combine(self) -> Latent:
        return self.law.latent(self.x)

    @torch.no_grad()
    def project_(self, generator: Generator) -> None:
        self.x.copy_(self.law.coordinates(generator.project(self.law.latent(self.x))))
