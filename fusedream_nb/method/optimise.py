"""THE loop: Adam on a score, as a generator of Steps; whoever calls next() drives."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor

from fusedream_nb.models.generators import Generator

from .latents import Parameterisation, noisy
from .run import Step
from .scores import Score
from .steer import Desk, Dial, State
from .views import Rng

CHECK_EVERY = 5  # steps between two looks at whether the picture is the best so far


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
    desk: Desk | None = None,
) -> Iterator[Step]:
    """Maximise a score over a latent by Adam (FuseDream, Algorithm 1, line 3), a Step at a time.

    After each step the latents are clamped to the generator's valid set. ``judge`` keeps the best picture
    (default: the score itself, with its randomness). ``began`` is where ``seconds`` count from. What can
    be saved and turned is laid on ``desk``: lr, steps, and the noise on the latents whose score is climbed.
    Raises FloatingPointError, naming the step, when the score is no longer a finite number.
    """
    at = Position(start.parameters(), rng, steps=steps, lr=lr, began=began)
    best = Best(judge or score, rng)
    desk = desk or Desk()
    resumed = desk.open({"at": at, "best": best}, {**at.dials, "noise": at.set_noise})
    while True:
        image = generator.decode(start.combine())
        shown = image.detach()
        if not resumed and (at.checks or desk.anew):
            best.look(shown, anew=desk.take_anew())
        resumed = False
        yield Step(
            index=at.index,
            total=at.total,
            image=shown,
            score=best.score if at.score is None else at.score,
            best_image=best.image,
            best_score=best.score,
            latent=start.combine().map(lambda t: t.detach()),
            knobs={"lr": at.lr, **desk.knobs},
            seconds=time.monotonic() - at.began,
        )
        if at.index >= at.total:
            return
        at.index += 1
        if at.noise:
            image = generator.decode(noisy(start.combine(), at.noise, rng))
        value = score(image, rng)
        at.score = value.detach()
        if not bool(torch.isfinite(value).all()):
            raise FloatingPointError(
                f"The score is not a finite number at step {at.index} of {at.total}; "
                "lower the learning rate or take another seed."
            )
        at.adam.zero_grad(set_to_none=True)
        value.sum().neg().backward()
        at.adam.step()
        start.project_(generator)


class Position:
    """Where a climb is between two steps: what moves, Adam, the randomness, how far it is."""

    def __init__(
        self, parameters: Sequence[Tensor], rng: Rng, *, steps: int, lr: float, began: float | None = None
    ) -> None:
        self.parameters = [p.requires_grad_() for p in parameters]
        self.adam = torch.optim.Adam(self.parameters, lr=lr)
        self.rngs = [rng] if isinstance(rng, torch.Generator) else list(rng)
        self.index, self.total, self.noise = 0, steps, 0.0
        self.score: Tensor | None = None
        self.began = time.monotonic() if began is None else began

    @property
    def lr(self) -> float:
        """Adam's rate."""
        return self.adam.param_groups[0]["lr"]

    @property
    def checks(self) -> bool:
        """Whether this step's picture is looked at: it may be the best so far."""
        return self.index % CHECK_EVERY == 0 or self.index >= self.total

    @property
    def dials(self) -> dict[str, Dial]:
        """What can be turned between two steps."""
        return {"lr": self.set_lr, "steps": self.set_total}

    def set_lr(self, lr: float) -> None:
        """Change Adam's rate, its moments kept; ValueError unless it is above 0."""
        if not 0 < lr < math.inf:
            raise ValueError(f"The learning rate must be above 0, and finite, not {lr}.")
        self.adam.param_groups[0]["lr"] = float(lr)

    def set_total(self, steps: int) -> None:
        """Change the number of steps; with fewer than are done, the next one is the last."""
        self.total = max(int(steps), self.index + 1)

    def set_noise(self, deviation: float) -> None:
        """Change the standard deviation of the latents' noise; ValueError below 0."""
        if not 0 <= deviation < math.inf:
            raise ValueError(f"The noise's standard deviation must be 0 or more, not {deviation}.")
        self.noise = float(deviation)

    def state_dict(self) -> State:
        """Return copies of all that the future depends on."""
        return {
            "parameters": [p.detach().clone() for p in self.parameters],
            "adam": deepcopy(self.adam.state_dict()),
            "rngs": [rng.get_state() for rng in self.rngs],
            "index": self.index,
            "total": self.total,
            "score": self.score,
            "seconds": time.monotonic() - self.began,
        }

    @torch.no_grad()
    def load_state_dict(self, state: State) -> None:
        """Go to a saved place; ValueError for that of a run with other latents."""
        mine, saved = [p.shape for p in self.parameters], [t.shape for t in state["parameters"]]
        if mine != saved or len(state["rngs"]) != len(self.rngs):
            raise ValueError("The saved state is of a run with other sizes; resume with the same arguments.")
        for parameter, tensor in zip(self.parameters, state["parameters"], strict=True):
            parameter.copy_(tensor)
        self.adam.load_state_dict(deepcopy(state["adam"]))
        for rng, numbers in zip(self.rngs, state["rngs"], strict=True):
            rng.set_state(numbers.cpu())
        self.index, self.total, self.score = state["index"], state["total"], state["score"]
        self.began = time.monotonic() - state["seconds"]


class Best:
    """The best picture of each run so far, by a score that does not change."""

    def __init__(self, judge: Score, rng: Rng) -> None:
        self.judge, self.rng = judge, rng
        self.image: Tensor = torch.empty(0)
        self.score: Tensor = torch.empty(0)

    @torch.no_grad()
    def look(self, image: Tensor, *, anew: bool = False) -> None:
        """Keep each picture that beats the one kept so far; with ``anew``, whatever was kept."""
        score = self.judge(image, self.rng)
        if anew or not len(self.score):
            self.image, self.score = image.clone(), score
            return
        better = score > self.score
        self.image = torch.where(better[:, None, None, None], image, self.image)
        self.score = torch.where(better, score, self.score)

    def state_dict(self) -> State:
        """Return the pictures and their scores."""
        return {"image": self.image, "score": self.score}

    def load_state_dict(self, state: State) -> None:
        """Put pictures and scores back."""
        self.image, self.score = state["image"], state["score"]
