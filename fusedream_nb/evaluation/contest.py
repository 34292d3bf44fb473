"""The methods of Table 1, each a function from captions to pictures, at equal work.

Work is what the generator does: M samples for a start, and three for a step, which goes backwards too. All
methods but the random sample get M + 3 · steps of the budget (a composition has one step at least). A
caption has randomness of its own, and the batched methods always run as many at once: a picture is the
same, to the bit, whatever stands beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fusedream_nb.method import augment
from fusedream_nb.method.baselines import big_sleep, naive_adam
from fusedream_nb.method.budgets import Budget, budget
from fusedream_nb.method.compose import compose
from fusedream_nb.method.fusedream import START_SEED, fusedream
from fusedream_nb.method.latents import top_k
from fusedream_nb.method.run import Step
from fusedream_nb.method.placement import Placement, Placements
from fusedream_nb.method.scores import AugCLIP
from fusedream_nb.models import Models

AT_ONCE = 4  # captions in a batch; another number rounds otherwise
PLACES = (  # of a composition: a quarter of the steps all, the rest the best
    Placement.at(0.5, x="left"),
    Placement.at(0.5, x="right"),
    Placement.at(0.5, y="top"),
    Placement.at(0.5, y="bottom"),
)
Method = Callable[[Sequence[str], Sequence[int], Models, Budget], Tensor]


def sizes_of(name: str | None = None) -> Budget:
    """Return a budget for measuring on hundreds of captions: the named one, but quick is shorter still.

    Raises ValueError for an unknown name.
    """
    sizes = budget(name)
    if sizes.name != "quick":
        return sizes
    return replace(sizes, M=20, steps=6, copies=2, start_copies=2, judged_copies=4)


def caption_seed(caption: str, seed: int) -> int:
    """Return the seed of one caption in [0, 2^63), from a run's seed: it depends on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed} {caption}".encode()).digest()[:8]) >> 1


def draw(method: str, captions: Sequence[str], models: Models, sizes: Budget, seed: int = 0) -> Tensor:
    """Return a method's pictures [n, 3, h, w] in [-1, 1] of captions, all with a run's seed.

    Raises ValueError for a method that is not known and as the method does.
    """
    if method not in METHODS:
        raise ValueError(f"No method is called {method!r}; known are {', '.join(METHODS)}.")
    seeds = [caption_seed(caption, seed) for caption in captions]
    return METHODS[method](captions, seeds, models, sizes).detach()


def work(sizes: Budget) -> int:
    """Return what a run costs the generator, in samples drawn."""
    return sizes.M + 3 * sizes.steps


@torch.no_grad()
def _best_of(captions: Sequence[str], seeds: Sequence[int], models: Models, sizes: Budget, M: int) -> Tensor:
    """Draw M samples for each caption, and return the best by AugCLIP."""
    same = augment.draw(1, sizes.start_copies, torch.Generator().manual_seed(START_SEED))
    pictures = []
    for caption, seed in zip(captions, seeds, strict=True):
        score = AugCLIP(models.clip, caption, sizes.start_copies, fixed=same)
        best, _ = top_k(models.generator, score, M, 1, torch.Generator().manual_seed(seed))
        pictures.append(models.generator.decode(best))
    return torch.cat(pictures)


def _random(captions: Sequence[str], seeds: Sequence[int], models: Models, sizes: Budget) -> Tensor:
    return _best_of(captions, seeds, models, sizes, 1)


def _best(captions: Sequence[str], seeds: Sequence[int], models: Models, sizes: Budget) -> Tensor:
    return _best_of(captions, seeds, models, sizes, work(sizes))


def _climb(
    method: Callable[..., Iterator[Step]],
    captions: Sequence[str],
    seeds: Sequence[int],
    models: Models,
    sizes: Budget,
    k: int | None = None,
) -> Tensor:
    """Run a method on batches of AT_ONCE captions, the last filled up with its last caption."""
    sizes, pictures = replace(sizes, k=k or sizes.k), []
    for first in range(0, len(captions), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        texts, numbers = list(captions[some]), list(seeds[some])
        n = len(texts)
        texts += texts[-1:] * (AT_ONCE - n)
        numbers += numbers[-1:] * (AT_ONCE - n)
        for step in method(texts, models, seed=numbers, budget=sizes):
            last = step
        pictures.append(last.best_image[:n])
    return torch.cat(pictures)


def _composition(captions: Sequence[str], seeds: Sequence[int], models: Models, sizes: Budget) -> Tensor:
    """Compose a picture for each caption, from half of M for each start."""
    own = replace(sizes, M=max(sizes.k, sizes.M // 2), steps=composition_steps(sizes.steps))
    pictures = []
    for caption, seed in zip(captions, seeds, strict=True):
        for step in compose(caption, models, placements=Placements.of(PLACES, 1), seed=seed, budget=own):
            last = step
        pictures.append(last.blended())
    return torch.cat(pictures)


def _real(captions: Sequence[str], seeds: Sequence[int], models: Models, sizes: Budget) -> Tensor:
    """Render the scenes that captions of the sticker test set describe."""
    from fusedream_nb.evaluation.captions import sticker_scenes
    from fusedream_nb.models.stickers.world import render

    texts, scenes = sticker_scenes()
    index = {caption: i for i, caption in enumerate(texts)}
    if not models.world or not all(caption in index for caption in captions):
        raise ValueError(
            "Only captions of the sticker test set have real pictures; leave out the method real."
        )
    chosen = scenes[torch.tensor([index[caption] for caption in captions])]
    return render(chosen, models.generator.size).to(models.device)


def composition_steps(steps: int) -> int:
    """Return the steps of a composition that cost the generator as much as some of a single picture.

    A placement's step draws two pictures and takes two gradients of each: ten samples, where a single
    picture's is three. All placements are looked at up to a quarter of the way, then one is. At least 1.
    """

    def cost(n: int) -> int:
        return 10 * (len(PLACES) * (n // 4 + 1) + n - n // 4)

    return max((n for n in range(1, steps + 1) if cost(n) <= 3 * steps), default=1)


METHODS: dict[str, Method] = {
    "real": _real,
    "random": _random,
    "best-of-M": _best,
    "naive-adam": partial(_climb, naive_adam),
    "big-sleep": partial(_climb, big_sleep),
    "fusedream-5": partial(_climb, fusedream, k=5),
    "fusedream-10": partial(_climb, fusedream, k=10),
    "composition": _composition,
}
