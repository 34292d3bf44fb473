"""THE loop: Adam on a score, as a generator of Steps; whoever calls next() drives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fusedream_nb.models.generators import Generator, Latent

from .augment import Rng
from .latents import Parameterisation
from .scores import Score

CHECK_EVERY = 5  # steps between two looks at whether the picture is the best so far


@dataclass(frozen=True)
class Step:
    """One step of a climb for n pictures at once; index 0 is the start, before any step.

    ``image`` [n, 3, h, w] in [-1, 1] is the picture *after* the step. ``score`` [n] is the noisy score
    that was climbed; ``best_score`` [n] is taken on fixed augmentations, and ``best_image`` is its
    picture. ``seconds`` count from the run's beginning.
    """

    index: int
    total: int
    image: Tensor
    score: Tensor
    best_image: Tensor
    best_score: Tensor
    latent: Latent
    knobs: dict[str, float]
    seconds: float


def climb(
    generator: Generator,
    score: Score,
    start: Parameterisation,
    rng: Rng,
    *,
    steps: int,
    lr: float = 5e-3,
    judge: Score | None = None,
    began: float | None = None,
) -> Iterator[Step]:
    """Maximise a score over a latent by Adam (FuseDream, Algorithm 1, line 3), a Step at a time.

    After each step the latents are clamped to the generator's valid set. ``judge`` keeps the best picture
    (default: the score itself, with its randomness). ``began`` is where ``seconds`` count from.
    Raises FloatingPointError, naming the step, when the score is no longer a finite number.
    """
    parameters = [p.requires_grad_() for p in start.parameters()]
    adam = torch.optim.Adam(parameters, lr=lr)
    began = time.monotonic() if began is None else began
    best = Best(judge or score, rng)
    image = generator.decode(start.combine())
    value = None
    for index in range(steps + 1):
        if index:
            assert value is not None
            adam.zero_grad(set_to_none=True)
            value.sum().neg().backward()
            adam.step()
            start.project_(generator)
            image = generator.decode(start.combine())
        shown = image.detach()
        if index % CHECK_EVERY == 0 or index == steps:
            best.look(shown)
        reached = value.detach() if value is not None else best.score
        yield Step(
            index=index,
            total=steps,
            image=shown,
            score=reached,
            best_image=best.image,
            best_score=best.score,
            latent=start.combine().map(lambda t: t.detach()),
            knobs={"lr": adam.param_groups[0]["lr"]},
            seconds=time.monotonic() - began,
        )
        if index < steps:
            value = score(image, rng)
            if not bool(torch.isfinite(value).all()):
                raise FloatingPointError(
                    f"The score is not a finite number at step {index + 1} of {steps}; "
                    "lower the learning rate or take another seed."
                )


class Best:
    """The best picture of each run so far, by a score that does not change."""

    def __init__(self, judge: Score, rng: Rng) -> None:
        self.judge, self.rng = judge, rng
        self.image: Tensor = torch.empty(0)
        self.score: Tensor = torch.empty(0)

    @torch.no_grad()
    def look(self, image: Tensor) -> None:
        """Keep each picture that beats the one kept so far."""
        score = self.judge(image, self.rng)
        if not len(self.score):
            self.image, self.score = image.clone(), score
            return
        better = score > self.score
        self.image = torch.where(better[:, None, None, None], image, self.image)
        self.score = torch.where(better, score, self.score)
