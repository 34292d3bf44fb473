"""Two pictures climbed together, at several placements at once: the loop of FuseDream-Composition."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fusedream_nb.models.generators import Latent
from fusedream_nb.models.perceptual import Perceptual

from .barrier import Rule, two_gradients
from .blend import poisson
from .latents import OverParameterised
from .optimise import Position
from .placement import Placement, crop, paste, shrink
from .run import Step
from .scores import Score
from .steer import Desk, State
from .views import Rng
from .workers import side_by_side, workers

Pair = tuple[Any, Any]  # the foreground's and the background's


@dataclass(frozen=True)
class ComposeStep(Step):
    """One step of n runs, a placement each; index 0 is the start, before any step.

    ``image`` [n, 3, h, w] is the fused picture after the step, of ``foreground`` [n, 3, h', w'] and
    ``background`` [n, 3, h, w], all in [-1, 1]. ``score``, ``loss`` and ``lam`` [n] are this picture's
    s_Fuse on fresh augmentations, ℓ_Fuse and λ; ``judged`` [n] is s_Fuse on fixed ones, when last
    looked at. The ``best_…`` are those of the picture that was ever judged highest. ``latent`` is the
    foreground's, ``latent_background`` the background's; ``going`` [n] says which runs still move.
    """

    placements: tuple[Placement, ...]
    foreground: Tensor
    background: Tensor
    loss: Tensor
    lam: Tensor
    judged: Tensor
    best_foreground: Tensor
    best_background: Tensor
    best_loss: Tensor
    latent_background: Latent
    going: Tensor

    @property
    def winner(self) -> int:
        """The run whose best picture has the highest fixed AugCLIP (Algorithm 2, line 5)."""
        return int(self.best_score.argmax())

    def blended(self, run: int | None = None) -> Tensor:
        """Return a run's best picture [1, 3, h, w], Poisson blended and in [-1, 1]; None: the winner's."""
        i = self.winner if run is None else run
        parts = self.best_foreground[i : i + 1], self.best_background[i : i + 1]
        return poisson(*parts, self.placements[i]).clamp(-1, 1)


def fused(
    foreground: Tensor,
    background: Tensor,
    placements: Sequence[Placement],
    score: Score,
    perceptual: Perceptual,
    rng: Rng,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return I_Fuse [n, 3, h, w], s_Fuse [n] and ℓ_Fuse [n], differentiably (FuseDream, §3.3).

    Foregrounds [n, 3, h', w'], backgrounds [n, 3, h, w] and n placements with boxes of one size. ℓ_Fuse
    is the LPIPS of the foreground as it is pasted, shrunk to the box, and of the background under it.
    """
    under = crop(background, placements)
    small = shrink(foreground, placements[0].box(*background.shape[-2:]))
    image = paste(small, background, placements)
    return image, score(image, rng), perceptual(small, under)


@dataclass
class Duet:
    """What all runs share: two generators, what is climbed, what decides, and how.

    ``score`` is s_Fuse's, ``judge`` the one that does not change, ``rule`` gives v. ``batch`` runs are in
    memory at a time; ``keep`` of them, the best judged, go on after a quarter of the steps.
    """

    generators: Pair
    score: Score
    judge: Score
    perceptual: Perceptual
    rule: Rule
    batch: int
    keep: int


@dataclass(frozen=True)
class _Look:
    """One run at one moment, [1, …] each: its pictures, its numbers, and the direction v [1, d]."""

    foreground: Tensor
    background: Tensor
    image: Tensor
    score: Tensor
    loss: Tensor
    lam: Tensor
    direction: Tensor


@dataclass
class Run:
    """One placement's run: its two over-parameterised latents, its own randomness, where it is."""

    placement: Placement
    foreground: OverParameterised
    background: OverParameterised
    rng: torch.Generator
    going: bool = True
    now: _Look = field(init=False)
    judged: Tensor = field(init=False)
    best: _Look = field(init=False)
    best_score: Tensor | None = None

    def parameters(self) -> list[Tensor]:
        """Return everything that the climb moves: the foreground's, then the background's."""
        return [*self.foreground.parameters(), *self.background.parameters()]

    def judge(self, judge: Score, *, anew: bool = False) -> None:
        """Keep the picture if it beats the one kept so far, by a score that does not change; or ``anew``."""
        with torch.no_grad():
            self.judged = judge(self.now.image, self.rng)
        if anew or self.best_score is None or self.judged > self.best_score:
            self.best, self.best_score = self.now, self.judged

    def state_dict(self) -> State:
        """Return the pictures, the direction and the scores; the latents are the position's."""
        looks = {"now": dict(vars(self.now)), "best": dict(vars(self.best))}
        return {**looks, "going": self.going, "judged": self.judged, "best_score": self.best_score}

    def load_state_dict(self, state: State) -> None:
        """Put back what :meth:`state_dict` gave."""
        self.now, self.best = _Look(**state["now"]), _Look(**state["best"])
        self.going, self.judged, self.best_score = state["going"], state["judged"], state["best_score"]


def climb_together(
    runs: list[Run],
    duet: Duet,
    *,
    steps: int,
    lr: float = 5e-3,
    began: float | None = None,
    desk: Desk | None = None,
) -> Iterator[ComposeStep]:
    """Solve Eq. 5 by Eq. 6 for each run's placement (Algorithm 2, line 3), a step of all at a time.

    v stands in place of the gradient in one Adam for all; after each step the bases are clamped to the
    generators' valid sets. What can be saved, and turned, is laid on ``desk``. A knob of the score or of
    the rule changes v, which is followed a step later.
    Raises FloatingPointError, naming the step, when a number is not finite.
    """
    parameters = [p for run in runs for p in run.parameters()]
    at = Position(parameters, [run.rng for run in runs], steps=steps, lr=lr, began=began)
    desk = desk or Desk()
    parts = {f"run {i}": run for i, run in enumerate(runs)}
    resumed = desk.open({"at": at, **parts}, at.dials)
    while True:
        if not resumed:
            _look_at_all(runs, duet, at, anew=desk.take_anew())
        resumed = False
        yield _step(runs, at, desk.knobs)
        if at.index >= at.total:
            return
        at.index += 1
        _point(runs)
        at.adam.step()
        for run in runs:
            run.foreground.project_(duet.generators[0])
            run.background.project_(duet.generators[1])


def _look_at_all(runs: list[Run], duet: Duet, at: Position, *, anew: bool) -> None:
    """Look at the runs that go on; judge them when it is time, and choose which still go on."""
    going = [run for run in runs if run.going]
    count = workers(runs[0].parameters()[0].device, duet.batch)
    side_by_side(lambda some: _look(some, duet), _batches(going, duet, duet.batch // count), count)
    if not all(torch.isfinite(v) for run in going for v in (run.now.score, run.now.loss)):
        raise FloatingPointError(
            f"The score or the perceptual loss is not a finite number at step {at.index} of "
            f"{at.total}; lower the learning rate or take another seed."
        )
    if at.checks or anew:
        side_by_side(lambda run: run.judge(duet.judge, anew=anew), going, count)
    if at.index == at.total // 4:
        for run in sorted(runs, key=lambda run: float(run.judged), reverse=True)[duet.keep :]:
            run.going = False


def _batches(runs: list[Run], duet: Duet, most: int) -> Iterator[list[Run]]:
    """Split runs into batches of at most so many, with boxes of one size."""
    side = duet.generators[1].size

    def size(run: Run) -> tuple[int, int]:
        return run.placement.box(side, side)[2:]

    for _, group in groupby(sorted(runs, key=size), key=size):
        some = list(group)
        yield from (some[first : first + most] for first in range(0, len(some), most))


def _look(runs: list[Run], duet: Duet) -> None:
    """Draw the pictures of some runs, and find their directions."""
    latents = [Latent.cat([part.combine() for part in parts]) for parts in _parts(runs)]
    if duet.generators[0] is duet.generators[1]:
        foreground, background = duet.generators[0].decode(Latent.cat(latents)).chunk(2)
    else:
        foreground, background = (g.decode(part) for g, part in zip(duet.generators, latents, strict=True))
    places, rngs = [run.placement for run in runs], [run.rng for run in runs]
    image, score, loss = fused(foreground, background, places, duet.score, duet.perceptual, rngs)
    parameters = [p for run in runs for p in run.parameters()]
    direction, lam = duet.rule(*two_gradients(loss, score, parameters))
    values = [t.detach().split(1) for t in (foreground, background, image, score, loss, lam, direction)]
    for run, *own in zip(runs, *values, strict=True):
        run.now = _Look(*own)


def _parts(runs: list[Run]) -> tuple[list[OverParameterised], list[OverParameterised]]:
    return [run.foreground for run in runs], [run.background for run in runs]


def _point(runs: list[Run]) -> None:
    """Put each run's direction where Adam looks for a gradient."""
    for run in runs:
        parameters = run.parameters()
        parts = run.now.direction[0].split([p.numel() for p in parameters])
        for p, part in zip(parameters, parts, strict=True):
            p.grad = part.view_as(p) if run.going else None


def _step(runs: list[Run], at: Position, knobs: dict[str, Any]) -> ComposeStep:
    def now(name: str) -> Tensor:
        return torch.cat([getattr(run.now, name) for run in runs])

    def best(name: str) -> Tensor:
        return torch.cat([getattr(run.best, name) for run in runs])

    latents = [Latent.cat([p.combine() for p in part]).map(lambda t: t.detach()) for part in _parts(runs)]
    return ComposeStep(
        index=at.index,
        total=at.total,
        image=now("image"),
        score=now("score"),
        best_image=best("image"),
        best_score=torch.cat([run.best_score for run in runs if run.best_score is not None]),
        latent=latents[0],
        knobs={"lr": at.lr, **knobs},
        seconds=time.monotonic() - at.began,
        placements=tuple(run.placement for run in runs),
        foreground=now("foreground"),
        background=now("background"),
        loss=now("loss"),
        lam=now("lam"),
        judged=torch.cat([run.judged for run in runs]),
        best_foreground=best("foreground"),
        best_background=best("background"),
        best_loss=best("loss"),
        latent_background=latents[1],
        going=torch.tensor([run.going for run in runs]),
    )
