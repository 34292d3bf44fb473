"""BasinCMA: evolution outside, descent inside (FuseDream, Appendix C, Fig. 17).

After Wampler and Popović (2009), as Huh et al. (2020) use it on BigGAN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusedream_nb.models import Models
from fusedream_nb.models.generators import Generator, Latent

from .config import RunConfig, Sizes, configure
from .fusedream import fixed_score
from .run import CHECK_EVERY, Run, State, Step
from .scores import AugCLIP, Score

SAMPLES = 4096  # latents from which the generator's law is read; none of them is decoded
LR = 0.05  # Adam's rate, in coordinates of which one is as wide as another
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
            raise ValueError(
                f"A search requires steps of 0 or more and a population of at least 4, not {self}."
            )

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
    prompt: str,
    models: Models,
    *,
    seed: int = 0,
    budget: Sizes = None,
    schedule: Schedule = Schedule(),  # noqa: B008  frozen
    sigma: float = 1.0,
    **sizes: float | None,
) -> BasinCMARun:
    """Return a run that maximises AugCLIP by BasinCMA (FuseDream, Appendix C), a population a Step.

    CMA-ES asks for a population, which is clamped to the generator's valid set; Adam climbs from it; CMA-ES
    is told the points where the climbs began, with the fixed scores where they *ended*. Both search
    :class:`Law` coordinates, in which the generator's own law is N(0, I).

    Args:
        prompt: what the picture shows.
        models: what is climbed and what scores it.
        seed: of all randomness.
        budget: gives the copies; the schedule gives the steps.
        schedule: how much work is done.
        sigma: CMA-ES's first step size.
        sizes: copies, judged_copies, and Adam's lr (default 0.05).

    A Step shows one picture [1, 3, h, w], the one of the population that has reached the most, and the best
    of all so far. Its knobs are ``mega_step``, the generator's ``evaluations`` so far, and CMA's ``sigma``.
    """
    own = {"lr": LR, "steps": schedule.rounds - 1, **sizes}
    config = configure("basin_cma", prompt, seed, budget, own, models, schedule=schedule, sigma=sigma)
    score = AugCLIP(models.clip, config.prompts, config.budget.copies)
    rng, options = torch.Generator().manual_seed(seed), {"sigma": sigma, "lr": config.budget.lr}
    fixed = fixed_score(models, config)
    run = BasinCMARun(models.generator, score, rng, schedule, fixed_score=fixed, **options)
    run.models, run.config = models, config
    return run


class BasinCMARun(Run[Step]):
    """BasinCMA on any score over any generator; CMA-ES is told the ``fixed_score`` (default: the score)."""

    method = "basin_cma"
    kept = (*Run.kept, "mega_step", "inner", "winner", "history")
    parts = (Schedule,)

    def __init__(
        self,
        generator: Generator,
        score: Score,
        rng: torch.Generator,
        schedule: Schedule,
        *,
        sigma: float = 1.0,
        lr: float = LR,
        fixed_score: Score | None = None,
    ) -> None:
        super().__init__(generator, score, rng, steps=schedule.rounds - 1, lr=lr, fixed_score=fixed_score)
        self.knobs, self.wanted = {"lr": lr}, {"lr": lr}
        self.schedule, self.sigma, self._seeded = schedule, sigma, rng.get_state()
        self.mega_step = self.inner = 0
        self.history: list[dict[str, Any]] = []  # what CMA-ES was told before it was asked, and the rng
        self.winner: tuple[Tensor, Tensor] | None = None
        self._begun: list[np.ndarray] = []

    @classmethod
    def from_config(cls, config: RunConfig, models: Models) -> BasinCMARun:
        """Return a run that has not begun, of what another was asked for."""
        (prompt,), (seed,), sizes = config.prompts, config.seeds, config.budget
        return basin_cma(prompt, models, seed=seed, budget=sizes, lr=sizes.lr, **config.options)

    def words(self) -> list[list[str]]:
        """Return the prompt."""
        return [self.config.prompts]

    def begin(self) -> _Whitened:
        """Return the first population."""
        import cma  # and with it Matplotlib

        def randn(*shape: int) -> np.ndarray:
            (rng,) = self.rngs
            return torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float64).cpu().numpy()

        self.law, self.history = Law.of(self.generator, self.rngs[0]), []
        options = {"popsize": self.schedule.population, "randn": randn, "seed": np.nan}  # no other randomness
        options |= {"verbose": -10, "verb_log": 0}  # and no files
        self.strategy = cma.CMAEvolutionStrategy(np.zeros(self.law.dim), self.sigma, options)
        return self._ask()

    def _ask(self, losses: list[float] | None = None) -> _Whitened:
        """Tell CMA-ES how far the last population came, and ask for the next."""
        if losses is not None:
            self.strategy.tell(self._begun, losses)
        self.history.append({"losses": losses, "rng": self.rngs[0].get_state()})
        start = _Whitened(self.law, torch.as_tensor(np.stack(self.strategy.ask())).to(self.law.mean))
        start.project_(self.generator)
        # Told of the points beyond the clamp, CMA would walk off where all pictures are the same.
        self._begun = list(start.x.double().cpu().numpy())
        self.inner = 0
        self.reset_best()
        return start

    @property
    def last_inner(self) -> int:
        """The last step of this population's climb."""
        plan = self.schedule
        return plan.final_steps if self.mega_step >= plan.mega_steps else plan.inner_steps

    @property
    def checks(self) -> bool:
        """Whether this step's pictures are looked at: one of them may be the best so far."""
        return self._reset or self.inner % CHECK_EVERY == 0 or self.inner >= self.last_inner

    def _moves(self) -> bool:
        """Count the steps of a population, and ask for another after its last one."""
        if not super()._moves():
            return False
        if self.inner < self.last_inner:
            self.inner += 1
            return True
        self.rewind()
        with torch.no_grad():
            losses = (-self.fixed_score(self.image, self.rng)).tolist()
        self.mega_step, self.index = self.mega_step + 1, self.index + 1
        self._start_at(self._ask(losses))
        return False

    def own(self) -> dict[str, Any]:
        """Return what is of the one member that has reached the most, and the best of all so far."""
        i = int(self.best_score.argmax())
        row, latent = slice(i, i + 1), self.start.combine().map(Tensor.detach)
        if self.winner is None or bool(self.best_score[i] > self.winner[1]):
            self.winner = self.best["image"][row], self.best_score[row]
        counted = {"mega_step": self.mega_step, "evaluations": (self.index + 1) * self.schedule.population}
        return {
            **{"image": self.image[row], "score": self.value[row], "latent": latent[row]},
            **{"best_image": self.winner[0], "best_score": self.winner[1]},
            "knobs": {**self.knobs, **counted, "sigma": float(self.strategy.sigma)},
        }

    def load_state_dict(self, state: State) -> None:
        """Go to a saved state, for which CMA-ES is told its history again."""
        if state.get("method") == self.method:
            self.rngs[0].set_state(self._seeded)
            self._start = self.begin()
            for row in state["history"][1:]:
                self.rngs[0].set_state(row["rng"].cpu())
                self._start = self._ask(row["losses"])
        super().load_state_dict(state)


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
        _, stds, directions = torch.linalg.svd((flat - mean) / samples**0.5, full_matrices=False)
        kept = stds > 1e-4 * stds[0]
        return cls(mean, stds[kept, None] * directions[kept], latents[:1])

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
    """Latents given by their coordinates x [n, dim], so that one learning rate suits all of them."""

    def __init__(self, law: Law, x: Tensor) -> None:
        self.law, self.x = law, x

    def parameters(self) -> list[Tensor]:
        return [self.x]

    def combine(self) -> Latent:
        return self.law.latent(self.x)

    @torch.no_grad()
    def project_(self, generator: Generator) -> None:
        self.x.copy_(self.law.coordinates(generator.project(self.law.latent(self.x))))
