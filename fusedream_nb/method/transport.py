"""Many prompts in one picture, by optimal transport between patches and prompts (OT prompts, Eq. 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.pictures import PictureFile

from .budgets import Budget
from .config import RunConfig, Seeds, Sizes, configure, plain
from .fusedream import Start, as_start, given
from .latents import Parameterisation, Plain, top_k
from .run import Run, Step
from .scores import EPSILON, Loss, PatchScore, Prompt, listed
from .views import Cutouts, Places

LR = 0.05  # Adam's rate in VQGAN+CLIP; the paper names none
FIXED_SEED = 220_408_472  # the fixed patches; any constant does
OLD = {"patches": "count", "smallest": "min_size"}  # until format 3


def transport(
    prompts: Prompt | Sequence[Prompt],
    models: Models,
    *,
    seed: Seeds = 0,
    budget: Sizes = None,
    loss: Loss = "transport",
    epsilon: float = EPSILON,
    cutouts: Cutouts = Cutouts(),  # noqa: B008  frozen
    weights: Sequence[float] | None = None,
    start: Start | None = None,
    **sizes: Any,  # noqa: ANN401  numbers
) -> TransportRun:
    """Return a run that makes one picture of several prompts, by Adam on Eq. 5 (or Eq. 1).

    Args:
        prompts: texts, or pictures: Paths, Pillow's, arrays of uint8, tensors [3, h, w] in [-1, 1].
        models: what is climbed and what scores it.
        seed: one, or several, which run as one batch: one picture of all prompts each.
        budget: gives the steps.
        loss: "transport" (Eq. 5) or "mean" (Eq. 1).
        epsilon: ε in units of the costs' scale.
        cutouts: how many random patches are cut a step, and how large.
        weights: the prompts'; the mean loss takes negative ones, away from the prompt.
        start: where to begin: n latents for n seeds, or a picture, whose codes are taken.
        sizes: steps, lr (default 0.05), and M: each picture begins at the best of M samples (default 1: a
            random one, as in the paper).

    The picture is the last Step's ``best_image`` [n, 3, h, w] in [-1, 1].
    Raises ValueError, before any work, for an empty prompt or numbers out of range.
    """
    own: dict[str, Any] = {"loss": loss, "epsilon": epsilon, "cutouts": cutouts}
    own |= {"weights": weights if weights is None else list(map(plain, weights)), "start": as_start(start)}
    if (M := sizes.get("M", 1)) < 1:
        raise ValueError(f"The start is the best of M samples, so M must be at least 1, not {M}.")
    if start is not None and M != 1:
        raise ValueError("A start is given, so there is nothing to search for; leave M at 1.")
    sizes = {"lr": LR, "M": 1, "k": 1, **sizes}
    config = configure("transport", ["every seed gets all prompts"], seed, budget, sizes, models, **own)
    return TransportRun(models, replace(config, prompts=listed(prompts)))


@dataclass(frozen=True)
class TransportStep(Step):
    """A Step with the last four fields of its :class:`.scores.Match`; ``score`` is minus the loss."""

    costs: Tensor
    plan: Tensor
    tangents: Tensor
    places: Places

    def losses(self) -> dict[str, Tensor]:
        """Return what moving each prompt's mass costs: its patches' mean cost, weighted by the plan."""
        each = (self.plan * self.costs).sum(1) / self.plan.sum(1)  # [n, m]
        prompts, m = self.knobs.get("prompt", []), each.shape[1]
        names = prompts if len(prompts) == m else [f"prompt {i + 1}" for i in range(m)]
        return dict(zip(names, each.unbind(1), strict=True))


class TransportRun(Run[TransportStep]):
    """A run of :func:`transport`: the same climb, of another score."""

    method, steps, model = "transport", TransportStep, "stickers/vqgan"
    parts = (Cutouts, PictureFile)
    defaults = {"loss": "transport", "epsilon": EPSILON, "cutouts": Cutouts()}  # noqa: RUF012
    defaults |= {"weights": None, "start": None}

    def __init__(self, models: Models, config: RunConfig) -> None:
        self.models, self.config = models, config
        options, texts, start = config.options, config.prompts, config.options["start"]
        knobs: dict[str, Any] = {"patches": options["cutouts"].count, "epsilon": options["epsilon"]}
        if all(isinstance(prompt, str) for prompt in texts):
            weights = [1.0] * len(texts) if options["weights"] is None else [*options["weights"]]
            knobs |= {"prompt": texts, "weights": weights}
        named = {name: value for name, value in options.items() if name != "start"}
        self.patches = PatchScore(models.clip, texts, **named)
        self.fixed = self.patches.fix(torch.Generator().manual_seed(FIXED_SEED))
        own: dict[str, Any] = {"fixed_score": self.fixed, "noise": 0.0}
        own["start"] = None if start is None else given(start, len(config.seeds), models.generator)
        super().__init__(models.generator, self.patches, **config.loop(), **own, **knobs)
        self.setters |= {"patches": self.patches.set_patches, "epsilon": self.set_epsilon}
        self.setters |= {name: partial(self.set_prompts, name) for name in ("prompt", "weights")}

    @classmethod
    def upgraded(cls, config: RunConfig) -> RunConfig:
        """Return a config of today from one of a record until format 3."""
        old = dict(config.options)
        cuts = {new: old.pop(name) for name, new in OLD.items() if name in old}
        old.pop("lr", None)
        budget = replace(config.budget, M=old.pop("M", 1), k=1)
        return replace(config, budget=budget, options={**old, "cutouts": Cutouts(**cuts)})

    @classmethod
    def sizes(cls, budget: Budget) -> Budget:
        """Return a budget of which the steps count."""
        return replace(budget, lr=LR, M=1, k=1)

    @classmethod
    def batches(cls, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[list[str], list[int]]]:
        """Return all prompts for each batch of seeds."""
        parts = [list(seeds[i : i + cls.together]) for i in range(0, len(seeds), cls.together)]
        return [(list(prompts), part) for part in parts]

    def begin(self) -> Parameterisation:
        """Return the best of M samples for each seed; a single one is not looked at."""
        M = self.config.budget.M
        draw = partial(top_k, self.generator, self.fixed, M, 1, batch=4)
        samples = [self.generator.sample(1, rng) if M == 1 else draw(rng=rng)[0] for rng in self.rngs]
        return Plain(Latent.cat(samples))

    def own(self) -> dict[str, Any]:
        """Return a TransportStep's own fields."""
        return {name: getattr(self.patches.seen, name) for name in ("costs", "plan", "tangents", "places")}

    def words(self) -> list[list[str]]:
        """Return all prompts for each picture."""
        return [list(self.knobs.get("prompt", self.config.prompts))] * len(self.config.seeds)

    def set_prompts(self, name: str, value: Sequence[Any]) -> None:
        """Change the prompts or their weights, 1 for each that has none."""
        new = {**self.knobs, name: list(value)}
        weights = [*new["weights"], *[1.0] * len(new["prompt"])][: len(new["prompt"])]
        for score in (self.patches, self.fixed):
            score.set_prompts(new["prompt"], weights)
        self.reset_best()

    def set_epsilon(self, value: float) -> None:
        """Change ε."""
        for score in (self.patches, self.fixed):
            score.set_epsilon(value)
        self.reset_best()
