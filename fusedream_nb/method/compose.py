"""FuseDream-Composition (Algorithm 2): a foreground and a background made for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fusedream_nb.models import Models
from fusedream_nb.models.generators import Generator, Latent
from fusedream_nb.models.perceptual import Perceptual

from .augment import Rng
from .barrier import RULES, BilevelRule, InverseRule, LinearRule, Rule, ScoreRule, two_gradients
from .barrier import rule as named_rule
from .blend import poisson
from .budgets import Budget
from .fusedream import AugCLIPRun, check_basis, given
from .latents import OverParameterised, Parameterisation
from .placement import PLACEMENTS, Placement, Placements, crop, paste, shrink
from .run import Gradient, RunConfig, State, Step, check_prompts, configure
from .workers import side_by_side, workers

SMALLEST = 17  # pixels a side that LPIPS's SqueezeNet can still read
RULE, BOX = ("rule", "beta", "lam"), ("alpha", "x", "y")  # the knobs of a rule and of a placement
Pair = tuple[Parameterisation | Latent, Parameterisation | Latent]


def compose(
    prompt: str | Sequence[str],
    models: Models,
    *,
    foreground: str | Sequence[str] | None = None,
    background: str | Sequence[str] | None = None,
    placements: Placement | Sequence[Placement] | Placements = PLACEMENTS,
    rule: Rule = BilevelRule(),  # noqa: B008  frozen
    seed: int | Sequence[int] = 0,
    budget: str | Budget | None = None,
    start: Pair | None = None,
    **sizes: float | None,
) -> CompositionRun:
    """Return a run that composes a foreground and a background (FuseDream, Algorithm 2).

    Args:
        prompt: what the whole shows: one text, or several, which pair with seeds as in ``fusedream``; each
            picture is the same as alone, up to rounding.
        models: what is climbed, what scores it, and the perceptual loss.
        foreground, background: what the two starts are ranked by, one text or one a picture; None: the
            whole prompt, as in the paper.
        placements: where the foreground may stand. All placements of a picture run side by side from one
            start, with the same randomness, and the best is kept; see :class:`Placements` for groups.
        rule: the update rule, one of :mod:`.barrier`.
        seed, budget: as in ``fusedream``.
        start: a foreground and a background to begin at, [n, …] each, instead of the search.
        sizes: fields of the budget to replace: M, k, steps, copies, lr, ….

    The pictures are the last step's ``pictures()`` [n, 3, h, w].
    Raises ValueError, before any work, for an empty prompt or numbers out of range.
    """
    options = {"foreground": foreground, "background": background, "rule": rule, "start": start}
    places = placements if isinstance(placements, Placements) else Placements.of(placements)
    return CompositionRun(
        models, configure("compose", prompt, seed, budget, sizes, **options, placements=places)
    )


@dataclass(frozen=True)
class ComposeStep(Step):
    """One step of a composition's n placements; index 0 is the start, before any step.

    ``image`` [n, 3, h, w] is the fused picture after the step, of ``foreground`` [n, 3, h', w'] and
    ``background`` [n, 3, h, w], all in [-1, 1]. ``score``, ``loss`` and ``lam`` [n] are this picture's
    s_Fuse on fresh views, ℓ_Fuse and λ; ``judged`` [n] is s_Fuse on fixed ones, when last looked at. The
    ``best_…`` are those of the picture that was ever judged highest. ``latent`` is the foreground's,
    ``latent_background`` the background's; ``going`` [n] says which placements still move, and ``group``
    [n] which picture each belongs to.
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
    group: Tensor

    @property
    def winners(self) -> list[int]:
        """For each picture, the placement whose best has the highest fixed score (Algorithm 2, line 5)."""
        own = [torch.nonzero(self.group == i).flatten() for i in range(int(self.group.max()) + 1)]
        scores = self.best_score.cpu()
        return [int(rows[scores[rows].argmax()]) for rows in own]

    @property
    def winner(self) -> int:
        """The first picture's winner."""
        return self.winners[0]

    def blended(self, place: int | None = None) -> Tensor:
        """Return a placement's, or the winner's, best picture [1, 3, h, w], Poisson blended and in [-1, 1]."""
        i = self.winner if place is None else place
        parts = self.best_foreground[i : i + 1], self.best_background[i : i + 1]
        return poisson(*parts, self.placements[i]).clamp(-1, 1)

    def pictures(self) -> Tensor:
        """Return the winners' best pictures, blended."""
        return torch.cat([self.blended(i) for i in self.winners])

    def fixed_score(self) -> Tensor:
        """Return the winners' best scores."""
        return self.best_score[self.winners]

    def frames(self, *, best: bool = False) -> list[list[Tensor]]:
        """Return each winner's foreground, background, and the two together."""
        if best:
            return [
                [self.best_foreground[i], self.best_background[i], self.blended(i)[0]] for i in self.winners
            ]
        return [[self.foreground[i], self.background[i], self.image[i]] for i in self.winners]

    def losses(self) -> dict[str, Tensor]:
        """Return the perceptual loss of each placement."""
        return {"LPIPS under the box": self.loss}


def fused(
    foreground: Tensor,
    background: Tensor,
    placements: Sequence[Placement],
    score: Callable[[Tensor, Rng], Tensor],
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


@dataclass(frozen=True)
class Look:
    """One placement at one moment, [1, …] each: its pictures, its numbers, and the direction v [1, d]."""

    foreground: Tensor
    background: Tensor
    image: Tensor
    score: Tensor
    loss: Tensor
    lam: Tensor
    direction: Tensor


@dataclass
class PlacementState:
    """One placement's two latents, its own randomness, and the picture that it is a placement of."""

    placement: Placement
    foreground: Parameterisation
    background: Parameterisation
    rng: torch.Generator
    group: int
    going: bool = True
    now: Look = field(init=False)
    best: Look = field(init=False)
    judged: Tensor = field(init=False)
    best_score: Tensor | None = None

    def parameters(self) -> list[Tensor]:
        """Return everything that the climb moves: the foreground's, then the background's."""
        return [*self.foreground.parameters(), *self.background.parameters()]

    def directions(self) -> list[Tensor | None]:
        """Return v for each of the parameters; none where this placement has stopped."""
        parameters = self.parameters()
        parts = self.now.direction[0].split([p.numel() for p in parameters])
        return [v.view_as(p) if self.going else None for p, v in zip(parameters, parts, strict=True)]


class Placed:
    """The latents of all placements as one parameterisation."""

    def __init__(self, states: list[PlacementState]) -> None:
        self.states = states

    def parameters(self) -> list[Tensor]:
        """Return everything that the climb moves, placement by placement."""
        return [p for state in self.states for p in state.parameters()]

    def combine(self) -> Latent:
        """Return the foregrounds' latents [n, …], differentiably."""
        return Latent.cat([state.foreground.combine() for state in self.states])

    def backgrounds(self) -> Latent:
        """Return the backgrounds' latents [n, …], differentiably."""
        return Latent.cat([state.background.combine() for state in self.states])

    def project_(self, generator: Generator) -> None:
        """Clamp all latents to the generator's valid set, in place."""
        for state in self.states:
            state.foreground.project_(generator)
            state.background.project_(generator)


class CompositionRun(AugCLIPRun[ComposeStep]):
    """A run of :func:`compose`: Eq. 5 solved by Eq. 6 for each placement (Algorithm 2, line 3).

    v stands in place of the gradient, in one Adam for all. A knob of the score or of the rule changes v,
    which is followed a step later. Where the :class:`Placements` keep a few, the others stop after a
    quarter of the steps.
    """

    method = "compose"
    parts = (Placement, Placements, BilevelRule, LinearRule, InverseRule, ScoreRule)
    renamed = {"rival": "rule"}  # noqa: RUF012

    def __init__(self, models: Models, config: RunConfig) -> None:
        places = config.options["placements"]
        self.groups, self.keep = places.each(len(config.seeds)), places.keep
        self.rule: Rule = config.options["rule"]
        texts = (config.options[name] or config.prompts for name in ("foreground", "background"))
        self.texts = [_each(text, len(config.seeds)) for text in texts]
        self.batch = max(1, 6 * 64**2 // models.generator.size**2)  # placements in memory at a time
        self.pruned = False
        every = [place for group in self.groups for place in group]
        _check_boxes(every, models.generator.size)
        knobs = _rule_knobs(self.rule)
        if len(every) == 1:
            knobs |= {name: getattr(every[0], name) for name in BOX}
        super().__init__(models, config, **knobs)
        self.setters |= {name: partial(self.set_rule, name) for name in RULE}
        self.setters |= {name: partial(self.set_box, name) for name in BOX}

    @classmethod
    def from_config(cls, config: RunConfig, models: Models) -> CompositionRun:
        """Return a run that has not begun, of what another was asked for; until format 3, of other names."""
        options, policy = dict(config.options), None
        if not isinstance(options.get("placements"), Placements):
            rule = {name: options.pop(name) for name in ("beta", "lam") if name in options}
            places, keep = options.get("placements"), options.pop("keep", None)
            options["rule"] = named_rule(options.pop("rival", "bilevel"), **rule)
            options["placements"] = Placements.of(
                [Placement(**place) for place in places or ()] or PLACEMENTS, keep
            )
            policy = options.pop("policy", None)
            options = {name: value for name, value in options.items() if name not in ("batch", "weights")}
        run = compose(config.prompts, models, seed=config.seeds, budget=config.budget, **options)
        return (
            run
            if policy is None
            else cls(models, replace(run.config, options={**run.config.options, "policy": policy}))
        )

    @property
    def states(self) -> list[PlacementState]:
        """All placements, picture by picture."""
        assert isinstance(self.start, Placed)
        return self.start.states

    def begin(self) -> Placed:
        """Return both starts, once for each placement (Algorithm 2, lines 1 and 2)."""
        n, pair = len(self.config.seeds), self.config.options["start"]
        if pair is None:
            pair = [OverParameterised.start(self.search(texts)) for texts in self.texts]
        halves: list[Any] = [given(half, n) for half in pair]
        rows = [[half.row(i) for half in halves] for i in range(n) for _ in self.groups[i]]
        placed = self._placed(rows)
        for state in placed.states:
            state.rng.set_state(self.seeded[state.group].get_state())
        return placed

    def restored(self, tensors: list[Tensor]) -> Placed:
        """Return a saved run's placements from their tensors."""
        if self.config.options["start"] is not None:
            return self.begin()
        check_basis(tensors, self.config)
        size = max(1, len(tensors) // (2 * sum(map(len, self.groups))))
        halves = [OverParameterised.of(tensors[i : i + size]) for i in range(0, len(tensors), size)]
        return self._placed([halves[i : i + 2] for i in range(0, len(halves), 2)])

    def _placed(self, rows: Sequence[Sequence[Parameterisation]]) -> Placed:
        places = [(place, i) for i, group in enumerate(self.groups) for place in group]
        states = [
            PlacementState(place, fore, back, torch.Generator(), i)
            for (place, i), (fore, back) in zip(places, rows, strict=False)
        ]
        self.rngs = [state.rng for state in states]
        return Placed(states)

    def evaluate(self, *, look: bool = False) -> Gradient:
        """Draw all placements' pictures, and return v (Eq. 6): none where one has stopped."""
        if look or self.states[0].best_score is None:
            self._look()
        self._before = [rng.get_state() for rng in self.rngs]
        self.image, self.value = self.gather("now", "image"), self.gather("now", "score")
        self.best_image = self.gather("best", "image")
        self.best_score = torch.cat([s.best_score for s in self.states if s.best_score is not None])
        return [v for state in self.states for v in state.directions()]

    def direction(self, gradient: Gradient) -> Gradient:
        """Return v, which :meth:`evaluate` has found together with λ."""
        return gradient

    def gather(self, moment: str, name: str) -> Tensor:
        """Return a number or picture of all placements [n, …], "now" or at their "best"."""
        return torch.cat([getattr(getattr(state, moment), name) for state in self.states])

    def _look(self) -> None:
        """Look at the placements that go on; judge them when it is time, and choose which still go on."""
        going = [state for state in self.states if state.going]
        count = workers(self.states[0].parameters()[0].device, self.batch)
        side_by_side(self._look_at, self._batches(going, self.batch // count), count)
        self.check_finite(*(value for state in going for value in (state.now.score, state.now.loss)))
        if self.checks or self._reset:
            side_by_side(self._judge, going, count)
            self._reset = False
        if self.keep and not self.pruned and self.index >= self.total // 4:
            self.pruned = True
            for i in range(len(self.groups)):
                own = [state for state in self.states if state.group == i]
                for state in sorted(own, key=lambda state: float(state.judged), reverse=True)[self.keep :]:
                    state.going = False

    def _batches(self, states: list[PlacementState], most: int) -> Iterator[list[PlacementState]]:
        """Split placements into batches of at most so many, with boxes of one size."""
        side = self.generator.size

        def size(state: PlacementState) -> tuple[int, int]:
            return state.placement.box(side, side)[2:]

        for _, group in groupby(sorted(states, key=size), key=size):
            some = list(group)
            yield from (some[first : first + most] for first in range(0, len(some), most))

    def _look_at(self, states: list[PlacementState]) -> None:
        """Draw the pictures of some placements, and find their directions."""
        some, rows = Placed(states), [state.group for state in states]
        latents = Latent.cat([some.combine(), some.backgrounds()])
        foreground, background = self.generator.decode(latents).chunk(2)
        places, rngs = [state.placement for state in states], [state.rng for state in states]
        score = partial(self.aug, rows=rows)
        image, s, loss = fused(foreground, background, places, score, self.models.perceptual, rngs)
        v, lam = self.rule(*two_gradients(loss, s, some.parameters()))
        values = [t.detach().split(1) for t in (foreground, background, image, s, loss, lam, v)]
        for state, *own in zip(states, *values, strict=True):
            state.now = Look(*own)

    @torch.no_grad()
    def _judge(self, state: PlacementState) -> None:
        """Keep a placement's picture if it beats the one kept so far, by a score that does not change."""
        state.judged = self.fixed(state.now.image, state.rng, rows=[state.group])
        if self._reset or state.best_score is None or state.judged > state.best_score:
            state.best, state.best_score = state.now, state.judged

    def report(self, **common: Any) -> ComposeStep:  # noqa: ANN401
        """Return the ComposeStep."""
        states = self.states
        return ComposeStep(
            **common,
            placements=tuple(state.placement for state in states),
            foreground=self.gather("now", "foreground"),
            background=self.gather("now", "background"),
            loss=self.gather("now", "loss"),
            lam=self.gather("now", "lam"),
            judged=torch.cat([state.judged for state in states]),
            best_foreground=self.gather("best", "foreground"),
            best_background=self.gather("best", "background"),
            best_loss=self.gather("best", "loss"),
            latent_background=Placed(states).backgrounds().map(lambda t: t.detach()),
            going=torch.tensor([state.going for state in states]),
            group=torch.tensor([state.group for state in states]),
        )

    def set_rule(self, name: str, value: Any) -> None:  # noqa: ANN401  a name or a number
        """Change the update rule, or its number."""
        new = {**{name: self.knobs[name] for name in RULE}, name: value}
        self.rule = named_rule(new["rule"], beta=new["beta"], lam=new["lam"])

    def set_box(self, name: str, value: float) -> None:
        """Move the box, where there is but one placement."""
        place = replace(self.states[0].placement, **{name: value})
        _check_boxes([place], self.generator.size)
        self.states[0].placement = place
        self.reset_best()

    def turned(self, name: str) -> None:
        """A knob's new value is followed a step later."""

    def state_dict(self) -> State:
        """Return copies of all that the run's future depends on."""
        states = [
            {
                "now": dict(vars(state.now)),
                "best": dict(vars(state.best)),
                "going": state.going,
                "judged": state.judged,
                "best_score": state.best_score,
            }
            for state in self.states
        ]
        return {**super().state_dict(), "pruned": self.pruned, "states": states}

    def load_state_dict(self, state: State) -> None:
        """Go to a saved state; see :meth:`Run.load_state_dict`."""
        super().load_state_dict(state)
        self.pruned = state["pruned"]
        for mine, saved in zip(self.states, state["states"], strict=True):
            mine.now, mine.best = Look(**saved["now"]), Look(**saved["best"])
            mine.going, mine.judged, mine.best_score = saved["going"], saved["judged"], saved["best_score"]


def _each(texts: str | Sequence[str], n: int) -> list[str]:
    """Return n texts from one or n."""
    found = [texts] if isinstance(texts, str) else list(texts)
    found = found * n if len(found) == 1 else found
    check_prompts(found)
    if len(found) != n:
        raise ValueError(f"{n} pictures require one foreground and background or as many, not {len(found)}.")
    return found


def _rule_knobs(rule: Rule) -> dict[str, Any]:
    """Return the knobs of a rule; "own" is one of the caller's."""
    return {
        "rule": next((name for name, kind in RULES.items() if type(rule) is kind), "own"),
        "beta": getattr(rule, "beta", 1.0),
        "lam": getattr(rule, "lam", 0.5),
    }


def _check_boxes(places: Sequence[Placement], side: int) -> None:
    for place in places:
        if min(place.box(side, side)[2:]) < SMALLEST:
            raise ValueError(
                f"The placement {place} is less than {SMALLEST} pixels wide or high on a picture of {side}, "
                "too small for the perceptual loss; take a larger alpha."
            )
