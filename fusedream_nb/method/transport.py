"""Many prompts in one picture, by optimal transport between patches and prompts (OT prompts, Eq. 5 and 6)."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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
from .patches import EPSILON, PATCHES, Loss, Match, PatchScore, Prompt
from .steer import Desk, Dial, Recipe, State, Steerable, changed

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
) -> Steerable[TransportStep]:
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
    given = [prompts] if isinstance(prompts, str | Tensor) else list(prompts)
    options = changed(
        transport, patches=patches, loss=loss, epsilon=epsilon, distance=distance, weights=weights, stop=stop,
        smallest=smallest, power=power, tilt=tilt, M=M, start=start, lr=lr,
    )  # fmt: skip
    knobs: dict[str, Any] = {
        "lr": lr,
        "steps": sizes.steps,
        "patches": patches,
        "epsilon": epsilon,
        "noise": 0.0,
    }
    if all(isinstance(prompt, str) for prompt in given):
        knobs |= {"prompt": given, "weights": [1.0] * len(given) if weights is None else [*weights]}
    recipe = Recipe("transport", given, seeds, sizes, options)
    return Steerable(
        partial(_run, models.generator, score, seeds, sizes.steps, lr, M, begin), models, recipe, knobs
    )


def _run(
    generator: Generator,
    score: PatchScore,
    seeds: list[int],
    steps: int,
    lr: float,
    M: int,
    start: Parameterisation | None,
    desk: Desk,
) -> Iterator[TransportStep]:
    began = time.monotonic()
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    score = copy.copy(score)  # its knobs are this run's own
    judge = score.fix(torch.Generator().manual_seed(_JUDGE_SEED))
    if start is None:
        M = 1 if desk.saved else M
        start = Plain(Latent.cat([_sample(generator, judge, M, rng) for rng in rngs]))
    desk.parts["match"] = seen = _Seen(score, judge)
    desk.dials |= _dials(score, judge, desk)
    for step in climb(generator, score, start, rngs, steps=steps, lr=lr, judge=judge, began=began, desk=desk):
        match = seen.last()
        yield TransportStep(
            **vars(step), costs=match.costs, plan=match.plan, tangents=match.tangents, places=match.places
        )


def _dials(score: PatchScore, judge: PatchScore, desk: Desk) -> dict[str, Dial]:
    """Return what turns the knobs of transport, by name; all but the patches change what scores mean."""
    now = {name: desk.knobs.get(name, []) for name in ("prompt", "weights")}

    def aim(name: str, value: Sequence[Any]) -> None:
        new = {**now, name: list(value)}
        weights = [*new["weights"], *[1.0] * len(new["prompt"])][: len(new["prompt"])]
        score.aim(new["prompt"], weights)
        judge.aim(new["prompt"], weights)
        now.update(new)
        desk.anew = True

    def epsilon(value: float) -> None:
        score.set_epsilon(value)
        judge.set_epsilon(value)
        desk.anew = True

    return {"patches": score.set_patches, "epsilon": epsilon, **{name: partial(aim, name) for name in now}}


class _Seen:
    """The Match of the last step, which a resumed run shows again."""

    def __init__(self, score: PatchScore, judge: PatchScore) -> None:
        self.score, self.judge = score, judge

    def last(self) -> Match:
        match = self.score.seen or self.judge.seen
        assert match is not None
        return match

    def state_dict(self) -> State:
        return self.last().state_dict()

    def load_state_dict(self, state: State) -> None:
        self.score.seen = Match.of(state)


def _sample(generator: Generator, judge: PatchScore, M: int, rng: torch.Generator) -> Latent:
    """Return the best [1, …] of M samples; a single one is not looked at."""
    return generator.sample(1, rng) if M == 1 else top_k(generator, judge, M, 1, rng, batch=4)[0]


def _given(start: Latent | Parameterisation, n: int) -> Parameterisation:
    begin = Plain(start) if isinstance(start, Latent) else start
    there = len(begin.combine())
    if there != n:
        raise ValueError(f"{n} seeds want a start of {n} latents, not {there}.")
    return begin
