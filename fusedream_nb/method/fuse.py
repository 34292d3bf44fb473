"""FuseDream for single pictures (Algorithm 1 of the paper): start, over-parameterise, climb."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch

from fusedream_nb.models import Models
from fusedream_nb.models.classes import near
from fusedream_nb.models.generators import Latent

from . import augment
from .budgets import Budget
from .budgets import budget as find_budget
from .latents import OverParameterised, Parameterisation, Plain, Sampler, Weights, any_basis, normal_y, top_k
from .optimise import Step, climb
from .scores import AugCLIP
from .steer import Desk, Dial, Recipe, Steerable, changed

StartY = Literal["classes", "normal", "nearest"]
JUDGE_SEED, START_SEED = 20_211_203, 12_015_73  # the fixed augmentations; any constants do


def fusedream(
    prompt: str | Sequence[str],
    models: Models,
    *,
    seed: int | Sequence[int] = 0,
    budget: str | Budget | None = None,
    M: int | None = None,
    k: int | None = None,
    steps: int | None = None,
    copies: int | None = None,
    lr: float | None = None,
    policy: Collection[str] = augment.ALL,
    weights: Weights | Literal["plain"] = "scalar",
    y: StartY = "classes",
) -> Steerable[Step]:
    """Make a picture from words by climbing AugCLIP (FuseDream, Algorithm 1), a Step at a time.

    Several prompts or seeds run as one batch: one picture each, the same as alone up to rounding.
    What is None comes from the budget (a name, or a Budget of your own). ``weights``
    are one scalar a basis latent, from 1/k (the paper), or one softmaxed logit a coordinate (the
    authors' code); "plain" climbs the mean of the basis, one latent. The start's ``y`` is any class's
    embedding, from N(0, I) where it is "normal" (Fig. 12), or one of the ten classes whose names CLIP
    finds "nearest" to the prompt.
    The picture of a run is the last Step's ``best_image`` [n, 3, h, w] in [-1, 1].
    Raises ValueError, before any work, for an empty prompt or numbers out of range.
    """
    runs = paired(prompt, seed)
    sizes = sized(budget, M=M, k=k, steps=steps, copies=copies, lr=lr)
    augment.draw(1, sizes.copies, torch.Generator(), policy)
    prompts, seeds = [text for text, _ in runs], [seed for _, seed in runs]
    recipe = Recipe(
        "fusedream", prompts, seeds, sizes, changed(fusedream, policy=policy, weights=weights, y=y)
    )
    loop = partial(_run, runs, models, sizes, policy, weights, y)
    return Steerable(loop, models, recipe, {**knobs_of(sizes, policy), "noise": 0.0, "prompt": prompts})


def _run(
    runs: list[tuple[str, int]],
    models: Models,
    sizes: Budget,
    policy: Collection[str],
    weights: Weights | Literal["plain"],
    y: StartY,
    desk: Desk,
) -> Iterator[Step]:
    began = time.monotonic()
    prompts = [text for text, _ in runs]
    rngs = [torch.Generator().manual_seed(seed) for _, seed in runs]
    if desk.saved:
        basis = any_basis(models.generator, len(runs), sizes.k)
    else:
        basis = _basis(runs, rngs, models, sizes, policy, y)
    start: Parameterisation
    if weights == "plain":
        start = Plain(basis.map(lambda t: t.mean(1)))
    else:
        start = OverParameterised.start(basis, weights, rngs)
    fixed = augment.draw(1, sizes.judged_copies, torch.Generator().manual_seed(JUDGE_SEED))
    score = AugCLIP(models.clip, prompts, sizes.copies, policy=policy)
    judge = AugCLIP(models.clip, prompts, sizes.judged_copies, fixed=fixed)
    desk.dials |= dials(score, judge, desk, len(runs))
    yield from climb(
        models.generator,
        score,
        start,
        rngs,
        steps=sizes.steps,
        lr=sizes.lr,
        judge=judge,
        began=began,
        desk=desk,
    )


def knobs_of(sizes: Budget, policy: Collection[str]) -> dict[str, Any]:
    """Return the knobs that all climbs of AugCLIP have, as they are at the start."""
    strength = augment.strengths(policy)
    switches = {name: strength.get(name, 0.0) for name in augment.ALL}
    return {"lr": sizes.lr, "steps": sizes.steps, "copies": sizes.copies, **switches}


def dials(score: AugCLIP, judge: AugCLIP, desk: Desk, n: int) -> dict[str, Dial]:
    """Return what turns the knobs of a climb of AugCLIP, over n pictures, by name."""

    def prompt(texts: Sequence[str]) -> None:
        pairs = paired(texts, 0)
        if len(pairs) not in (1, n):
            raise ValueError(f"{n} pictures want one prompt or as many, not {len(pairs)}.")
        score.text = judge.text = score.clip.encode_text([text for text, _ in pairs])
        desk.anew = True

    return {
        "prompt": prompt,
        "copies": score.set_copies,
        **{name: partial(score.set_strength, name) for name in augment.ALL},
    }


def _basis(
    runs: list[tuple[str, int]],
    rngs: list[torch.Generator],
    models: Models,
    sizes: Budget,
    policy: Collection[str],
    y: StartY,
) -> Latent:
    """Return the k best starts of each run [n, k, dim]; those of one seed, and one law, share M pictures."""
    same = augment.draw(1, sizes.start_copies, torch.Generator().manual_seed(START_SEED), policy)
    found: dict[int, Latent] = {}
    for prompt, seed in dict.fromkeys((text if y == "nearest" else None, seed) for text, seed in runs):
        law: Sampler | None = normal_y(models.generator) if y == "normal" else None
        if prompt is not None:
            law = near(prompt, models.generator, models.clip)
        rows = [i for i, run in enumerate(runs) if run[1] == seed and prompt in (None, run[0])]
        rank = AugCLIP(models.clip, [runs[i][0] for i in rows], sizes.start_copies, fixed=same)
        best, _ = top_k(models.generator, rank.table, sizes.M, sizes.k, rngs[rows[0]], sample=law)
        for place, i in enumerate(rows):
            found[i] = best[place : place + 1]
            rngs[i].set_state(rngs[rows[0]].get_state())
    return Latent.cat([found[i] for i in range(len(runs))])


def sized(budget: str | Budget | None, **given: Any) -> Budget:  # noqa: ANN401  numbers of several types
    """Return a budget with what is given, unless None, in place; ValueError for numbers out of range."""
    base = budget if isinstance(budget, Budget) else find_budget(budget)
    sizes = replace(base, **{name: value for name, value in given.items() if value is not None})
    _check(sizes)
    return sizes


def paired(prompt: str | Sequence[str], seed: int | Sequence[int]) -> list[tuple[str, int]]:
    """Pair prompts with seeds: one prompt with many seeds, many prompts with one, or one each.

    Raises ValueError for an empty prompt, a seed out of range and numbers that do not pair.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    seeds = [seed] if isinstance(seed, int) else [int(s) for s in seed]
    if not prompts or any(not text.strip() for text in prompts):
        raise ValueError("The prompt is empty; say in words what the picture should show.")
    if not seeds or any(s < 0 or s >= 2**63 for s in seeds):
        raise ValueError("A seed is a whole number from 0 to 2^63 - 1.")
    if len(prompts) > 1 and len(seeds) > 1 and len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts want one seed or as many, not {len(seeds)}.")
    n = max(len(prompts), len(seeds))
    return list(zip(prompts * (n // len(prompts)), seeds * (n // len(seeds)), strict=True))


def _check(sizes: Budget) -> None:
    if not 1 <= sizes.k <= sizes.M:
        raise ValueError(f"The start keeps k of M samples, so 1 ≤ k ≤ M; got k = {sizes.k}, M = {sizes.M}.")
    if sizes.steps < 0:
        raise ValueError(f"The number of steps must be 0 or more, not {sizes.steps}.")
    if sizes.copies < 1:
        raise ValueError(f"The number of augmented copies must be at least 1, not {sizes.copies}.")
    if not sizes.lr > 0:
        raise ValueError(f"The learning rate must be above 0, not {sizes.lr}.")
