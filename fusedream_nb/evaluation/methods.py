"""The methods of Table 1, each a function from captions to pictures, at equal work.

Work is what the generator does: M samples for a start, and three for a step, which goes backwards too. All
methods but the random sample get M + 3 · steps of the budget (a composition has one step at least). A
caption has randomness of its own, but from M = 1,000 on a start's samples are one set for all, kept as a
bank. Batches are always of one size: a picture is the same, to the bit, whatever stands beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.evaluation.captions import sticker_scenes
from fusedream_nb.method import bank
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.run import Run
from fusedream_nb.models import Models
from fusedream_nb.models.stickers.world import render

AT_ONCE = 4  # captions in a batch; another number rounds otherwise
SIDES = ((0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1))  # left, right, top, bottom
PLACES = [fd.Placement(0.5, x, y) for x, y in SIDES]  # a quarter of the steps all, the rest the best
Method = Callable[[Sequence[str], int, Models, Budget], Tensor]  # of captions and a run's seed


def caption_seed(caption: str, seed: int) -> int:
    """Return the seed of one caption in [0, 2^63), from a run's seed: it depends on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed} {caption}".encode()).digest()[:8]) >> 1


def draw(method: str, captions: Sequence[str], models: Models, sizes: Budget, seed: int = 0) -> Tensor:
    """Return a method's pictures [n, 3, h, w] in [-1, 1] of captions; ValueError as :func:`chosen`."""
    chosen([method], captions, models.name)
    return METHODS[method](captions, seed, models, sizes).detach()


def chosen(names: Sequence[str] | None, captions: Sequence[str], model: str) -> tuple[str, ...]:
    """Return the methods of some names, each once; for None all that can draw the captions.

    Raises ValueError for a name that is not known, and for real pictures of captions that have none.
    """
    all_real = model.partition("/")[0] == "stickers" and set(captions) <= set(sticker_scenes()[0])
    if names is None:
        return tuple(name for name in METHODS if all_real or METHODS[name] is not real)
    if unknown := [name for name in names if name not in METHODS]:
        raise ValueError(f"No method is called {unknown[0]!r}; known are {', '.join(METHODS)}.")
    if not all_real and any(METHODS[name] is real for name in names):
        raise ValueError(
            "Only captions of the stickers' test set have real pictures; leave out the method real."
        )
    return tuple(dict.fromkeys(names))


def work(sizes: Budget) -> int:
    """Return what a run costs the generator, in samples."""
    return sizes.M + 3 * sizes.steps


def seeds_of(captions: Sequence[str], seed: int, M: int = 0) -> list[int]:
    """Return a seed per caption: its own, or the run's where M samples of a start are kept as a bank."""
    return [seed if M >= bank.WORTH else caption_seed(caption, seed) for caption in captions]


@torch.no_grad()
def best_of(
    M: Callable[[Budget], int], captions: Sequence[str], seed: int, models: Models, sizes: Budget
) -> Tensor:
    """Return the best by AugCLIP of so many samples for each caption."""
    views, n = bank.start_views(sizes.start_copies), M(sizes)
    pictures = []
    for caption, number in zip(captions, seeds_of(captions, seed, n), strict=True):
        score = fd.AugCLIP(models.clip, caption, sizes.start_copies, fixed=views)
        best, _ = fd.top_k(models.generator, score.table, n, 1, torch.Generator().manual_seed(number))
        pictures.append(models.generator.decode(best.map(lambda t: t[0])))
    return torch.cat(pictures)


def climb(
    method: Callable[..., Run[Any]],
    captions: Sequence[str],
    seed: int,
    models: Models,
    sizes: Budget,
    *,
    ranked: bool = True,
    price: Callable[[Budget], Budget] = lambda sizes: sizes,
) -> Tensor:
    """Run a method on batches of AT_ONCE captions, the last one filled up with its last caption.

    ``ranked`` says whether the method's start is the best of M samples; ``price`` gives the sizes at which it
    costs the generator as much as the others.
    """
    own, pictures = price(sizes), []
    seeds = seeds_of(captions, seed, own.M if ranked else 0)
    for first in range(0, len(captions), AT_ONCE):
        rows = [min(i, len(captions) - 1) for i in range(first, first + AT_ONCE)]
        texts, numbers = [captions[i] for i in rows], [seeds[i] for i in rows]
        for step in method(texts, models, seed=numbers, budget=own):
            last = step
        pictures.append(last.pictures())
    return torch.cat(pictures)[: len(captions)]


def real(captions: Sequence[str], seed: int, models: Models, sizes: Budget) -> Tensor:
    """Render the scenes that captions of the sticker test set describe."""
    texts, scenes = sticker_scenes()
    index = {caption: i for i, caption in enumerate(texts)}
    picked = scenes[torch.tensor([index[caption] for caption in captions])]
    return render(picked, models.generator.size).to(models.device)


def composition_steps(steps: int) -> int:
    """Return the steps of a composition, at least 1, at the cost of some of a single picture.

    A placement's step costs ten samples, a single picture's three: it draws two pictures and takes two
    gradients of each. All placements are climbed for a quarter of the way, then one is.
    """

    def cost(n: int) -> int:
        return 10 * (len(PLACES) * (n // 4 + 1) + n - n // 4)

    return max((n for n in range(1, steps + 1) if cost(n) <= 3 * steps), default=1)


def composition_sizes(sizes: Budget) -> Budget:
    """Return sizes at which a composition costs as much: half of M for each of its two starts."""
    return replace(sizes, M=max(sizes.k, sizes.M // 2), steps=composition_steps(sizes.steps))


METHODS: dict[str, Method] = {
    "real": real,
    "random": partial(best_of, lambda sizes: 1),
    "best-of-M": partial(best_of, work),
    "naive-adam": partial(climb, fd.naive_adam, ranked=False),
    "big-sleep": partial(climb, fd.big_sleep, ranked=False),
    "fusedream-5": partial(climb, fd.fusedream, price=lambda sizes: replace(sizes, k=5)),
    "fusedream-10": partial(climb, fd.fusedream, price=lambda sizes: replace(sizes, k=10)),
    "composition": partial(
        climb, partial(fd.compose, placements=fd.Placements.of(PLACES, 1)), price=composition_sizes
    ),
}
