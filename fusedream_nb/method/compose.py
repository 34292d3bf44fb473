"""FuseDream-Composition (Algorithm 2): a foreground and a background made for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusedream_nb.models import Models
from fusedream_nb.models.compute import side_by_side, workers
from fusedream_nb.models.generators import Generator, Latent
from fusedream_nb.models.perceptual import Perceptual

from .barrier import RULES, BilevelRule, Rule, two_gradients
from .barrier import rule as named_rule
from .config import RunConfig, Seeds, Sizes, Texts, check_prompts, configure
from .fusedream import AugCLIPRun, check_basis, given
from .latents import OverParameterised, Parameterisation, Plain
from .placement import PLACEMENTS, Placement, Placements, crop, paste, poisson, shrink
from .run import Gradient, State, Step
from .views import Rng

MIN_BOX = 17  # pixels a side that LPIPS's SqueezeNet can still read
RULE, BOX = ("rule", "beta", "lam"), ("alpha", "x", "y")  # the knobs of a rule and of a placement
BEST = ("foreground", "background", "image", "loss")  # what is kept of the best moment
Halves = Plain | OverParameterised
Pair = Sequence[Parameterisation | Latent]


def compose(
    prompt: Texts,
    models: Models,
    *,
    foreground: Texts | None = None,
    background: Texts | None = None,
    placements: Placement | Sequence[Placement] | Placements = PLACEMENTS,
    rule: Rule = BilevelRule(),  # noqa: B008  frozen
    seed: Seeds = 0,
    budget: Sizes = None,
    start: Pair | None = None,
    **sizes: float | None,
) -> CompositionRun:
    """Return a run that composes a foreground and a background (FuseDream, Algorithm 2).

    Args:
        prompt: what the whole shows: one text, or several, which pair with seeds as in ``fusedream``; each
            picture is the same as alone, up to rounding.
        models: what is climbed, what scores it, and the perceptual loss.
        foreground: what its start is ranked by, one text or one a picture; None: the prompt, as in the paper.
        background: the same.
        placements: where the foreground may stand. All placements of a picture run side by side from one
            start, with the same randomness, and the best is kept; see :class:`Placements` for groups.
        rule: the update rule, one of :mod:`.barrier`.
        seed: as in ``fusedream``.
        budget: as in ``fusedream``.
        start: a foreground and a background to begin at, [n, …] each, instead of the search.
        sizes: as in ``fusedream``.

    The pictures are the last step's ``pictures()`` [n, 3, h, w].
    Raises ValueError, before any work, for an empty prompt or numbers out of range.
    """
    places = placements if isinstance(placements, Placements) else Placements.of(placements)
    options = {"foreground": foreground, "background": background, "rule": rule, "start": start}
    config = configure("compose", prompt, seed, budget, sizes, models, **options, placements=places)
    return CompositionRun(models, config)


@dataclass(frozen=True)
class ComposeStep(Step):
    """One step of a composition's n placements; index 0 is the start, before any step.

    ``image`` [n, 3, h, w] is the fused picture after the step, of ``foreground`` [n, 3, h', w'] and
    ``background`` [n, 3, h, w]. ``score``, ``loss`` and ``lam`` [n] are this picture's s_Fuse on fresh views,
    ℓ_Fuse and λ; ``judged`` [n] is s_Fuse on fixed ones, when last looked at. The ``best_…`` are those of the
    picture that was ever judged highest. ``latent`` is the foreground's, ``latent_background`` the
    background's; ``going`` [n] says which placements still move, ``group`` [n] whose picture each belongs to.
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
        return [int(rows[0]) for rows in _leading(self.best_score, self.group, 1)]

    @property
    def winner(self) -> int:
        """The first picture's winner."""
        return self.winners[0]

    def blended(self, place: int | None = None) -> Tensor:
        """Return a placement's (None: the winner's) best picture [1, 3, h, w], Poisson blended."""
        i = self.winner if place is None else place
        return poisson(self.best_foreground[[i]], self.best_background[[i]], self.placements[i]).clamp(-1, 1)

    def pictures(self) -> Tensor:
        """Return the winners' best pictures, blended."""
        return torch.cat([self.blended(i) for i in self.winners])

    def fixed_score(self) -> Tensor:
        """Return the winners' best scores."""
        return self.best_score[self.winners]

    def frames(self, *, best: bool = False) -> list[list[Tensor]]:
        """Return each winner's foreground, background, and the two together."""
        if best:
            back = self.best_background
            return [[self.best_foreground[i], back[i], self.blended(i)[0]] for i in self.winners]
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


class Both:
    """Foregrounds and backgrounds [n, …], one a placement, as one parameterisation; some of them stopped."""

    def __init__(self, foreground: Halves, background: Halves) -> None:
        self.foreground, self.background = foreground, background
        self.stop(torch.ones(len(foreground.parameters()[0]), dtype=torch.bool))

    def stop(self, going: Tensor) -> None:
        """Let only some go on from where they are now, by a mask [n]."""
        self.going, self._kept = going, [p.detach().clone() for p in self.parameters()]

    def like(self, tensors: Sequence[Tensor]) -> Both:
        """Return another of the same kind, made of other tensors."""
        half = len(self.foreground.parameters())
        return Both(self.foreground.like(tensors[:half]), self.background.like(tensors[half:]))

    def parameters(self) -> list[Tensor]:
        """Return everything that the climb moves: the foregrounds', then the backgrounds'."""
        return [*self.foreground.parameters(), *self.background.parameters()]

    def combine(self) -> Latent:
        """Return the foregrounds' latents [n, …], differentiably."""
        return self.foreground.combine()

    @torch.no_grad()
    def project_(self, generator: Generator) -> None:
        """Clamp all latents to the generator's valid set, and put back those that have stopped."""
        self.foreground.project_(generator)
        self.background.project_(generator)
        for parameter, kept in zip(self.parameters(), self._kept, strict=True):
            parameter[~self.going] = kept[~self.going]


class CompositionRun(AugCLIPRun[ComposeStep]):
    """A run of :func:`compose`: Eq. 5 solved by Eq. 6 for each placement (Algorithm 2, line 3).

    v stands in place of the gradient, in one Adam for all; a knob's new value is followed a step later.
    Where the :class:`Placements` keep a few, the others stop after a quarter of the steps.
    """

    method, steps, together = "compose", ComposeStep, 1
    kept = (*AugCLIPRun.kept, "now", "pruned")
    parts = (Placement, Placements, *RULES.values())
    renamed = {"rival": "rule"}  # noqa: RUF012
    defaults = {"rule": BilevelRule(), "placements": Placements.of(PLACEMENTS)}  # noqa: RUF012
    defaults |= dict.fromkeys(("foreground", "background", "start"))

    def __init__(self, models: Models, config: RunConfig) -> None:
        n, options = len(config.seeds), config.options
        groups, self.keep = options["placements"].each(n), options["placements"].keep
        self.places = [place for group in groups for place in group]
        self.group = [i for i, group in enumerate(groups) for _ in group]
        self.rule: Rule = options["rule"]
        ranked = [options[name] for name in ("foreground", "background")]
        self.texts = [_each(config.prompts if texts is None else texts, n) for texts in ranked]
        self.batch = max(1, 6 * 64**2 // models.generator.size**2)  # placements in memory at a time
        self.pruned = False
        self.now: dict[str, Tensor] = {}  # a tensor [n, …] by name: pictures, values, and v of each parameter
        _check_boxes(self.places, models.generator.size)
        kind = next((name for name, kind in RULES.items() if type(self.rule) is kind), "own")  # the caller's
        knobs = {"rule": kind, "beta": getattr(self.rule, "beta", 1.0), "lam": getattr(self.rule, "lam", 0.5)}
        knobs |= {name: getattr(self.places[0], name) for name in BOX if len(self.places) == 1}
        super().__init__(models, config, **knobs)
        self.setters |= {name: partial(self.set_rule, name) for name in RULE}
        self.setters |= {name: partial(self.set_box, name) for name in BOX}
        self._seed_placements()
        if options["start"] is not None:
            self._start = self._at_each_placement(
                given(half, n, models.generator) for half in options["start"]
            )

    @classmethod
    def upgraded(cls, config: RunConfig) -> RunConfig:
        """Return a config of today from one of a record until format 3."""
        old = config.options
        numbers = {name: old[name] for name in ("beta", "lam") if name in old}
        places = [Placement(**place) for place in old.get("placements", ())] or PLACEMENTS
        own: dict[str, Any] = {n: old[n] for n in ("foreground", "background", "policy") if n in old}
        own["rule"] = named_rule(old.get("rival", "bilevel"), **numbers)
        own["placements"] = Placements.of(places, old.get("keep"))
        return replace(config, options=own)

    # Where it begins.

    def begin(self) -> Both:
        """Return both starts, once for each placement (Algorithm 2, lines 1 and 2)."""
        halves = [OverParameterised.start(self.search(texts)) for texts in self.texts]
        self._seed_placements()
        return self._at_each_placement(halves)

    def restored(self, tensors: list[Tensor]) -> Both:
        """Return a saved run's latents from their tensors."""
        check_basis(tensors, self.config)
        half = len(tensors) // 2
        return Both(OverParameterised.of(tensors[:half]), OverParameterised.of(tensors[half:]))

    def _seed_placements(self) -> None:
        """Give each placement the randomness of its picture, as it stands."""
        self.rng = self.rngs = [self.seeded[i].clone_state() for i in self.group]

    def _at_each_placement(self, halves: Iterable[Any]) -> Both:
        return Both(*(half.like([t[self.group].detach() for t in half.parameters()]) for half in halves))

    @property
    def both(self) -> Both:
        """The latents of all placements."""
        return self.start  # type: ignore[return-value]

    # A step.

    def evaluate(self, *, look: bool = False) -> Gradient:
        """Draw all placements' pictures that go on, and return their directions v (Eq. 6)."""
        if look or not self.now:
            self._look()
        self._before = [rng.get_state() for rng in self.rngs]
        self.image, self.value = self.now["image"], self.now["score"]
        return [self.now[f"v{i}"] for i in range(len(self.both.parameters()))]

    def direction(self, gradient: Gradient) -> Gradient:
        """Return v, which :meth:`evaluate` has found together with λ."""
        return gradient

    def _look(self) -> None:
        """Look at the placements that go on; judge them when it is time, and choose which still go on."""
        going = self.both.going.nonzero().flatten().tolist()
        count = workers(self.both.parameters()[0].device, self.batch)
        batches = self._batches(going, self.batch // count)
        found = side_by_side(self._look_at, batches, count)
        rows = [row for batch in batches for row in batch]
        for name in found[0]:
            self._put(name, rows, torch.cat([part[name] for part in found]))
        self.check_finite(self.now["score"][rows], self.now["loss"][rows])
        if self.checks:
            self._put("judged", going, torch.cat(side_by_side(self._judged, going, count)))
            self.keep_best({name: self.now[name] for name in BEST}, self.now["judged"])
        if self.keep and not self.pruned and self.index >= self.total // 4:
            self.pruned, best = True, torch.zeros_like(self.both.going)
            best[torch.cat(_leading(self.now["judged"], torch.tensor(self.group), self.keep))] = True
            self.both.stop(self.both.going & best)

    def _batches(self, rows: list[int], most: int) -> list[list[int]]:
        """Split placements into batches of at most so many, with boxes of one size."""
        size = {row: self.places[row].box(*[self.generator.size] * 2)[2:] for row in rows}
        alike = [[row for row in rows if size[row] == each] for each in sorted(set(size.values()))]
        return [some[first : first + most] for some in alike for first in range(0, len(some), most)]

    def _look_at(self, rows: list[int]) -> dict[str, Tensor]:
        """Draw the pictures of some placements; return them with their values, and v of each parameter."""
        parameters = [p[rows].detach().requires_grad_() for p in self.both.parameters()]
        both = self.both.like(parameters)
        latents = Latent.cat([both.foreground.combine(), both.background.combine()])
        foreground, background = self.generator.decode(latents).chunk(2)
        places, rngs = [self.places[row] for row in rows], [self.rngs[row] for row in rows]
        score = partial(self.aug, rows=[self.group[row] for row in rows])
        image, s, loss = fused(foreground, background, places, score, self.models.perceptual, rngs)
        v, lam = self.rule(*two_gradients(loss, s, parameters))
        found = {"foreground": foreground, "background": background, "image": image}
        found |= {"score": s, "loss": loss, "lam": lam}
        for i, part in enumerate(v.split([p[0].numel() for p in parameters], 1)):
            found[f"v{i}"] = part.view_as(parameters[i])
        return {name: t.detach() for name, t in found.items()}

    @torch.no_grad()
    def _judged(self, row: int) -> Tensor:
        """Return the fixed score [1] of a placement's picture."""
        return self.fixed(self.now["image"][row : row + 1], self.rngs[row : row + 1], rows=[self.group[row]])

    def _put(self, name: str, rows: list[int], values: Tensor) -> None:
        """Replace some rows of what is known now."""
        old = self.now.get(name)
        new = values.new_empty(len(self.places), *values.shape[1:]) if old is None else old.clone()
        new[rows] = values
        self.now[name] = new

    def own(self) -> dict[str, Any]:
        """Return a ComposeStep's own fields."""
        names = ("foreground", "background", "loss", "lam", "judged")
        return {
            **{name: self.now[name] for name in names},
            **{f"best_{name}": t for name, t in self.best.items()},
            "placements": tuple(self.places),
            "latent_background": self.both.background.combine().map(Tensor.detach),
            "going": self.both.going,
            "group": torch.tensor(self.group),
        }

    # Its knobs and its state.

    def set_rule(self, name: str, value: Any) -> None:  # noqa: ANN401  a name or a number
        """Change the update rule, or its number."""
        new = {**{name: self.knobs[name] for name in RULE}, name: value}
        self.rule = named_rule(new["rule"], beta=new["beta"], lam=new["lam"])

    def set_box(self, name: str, value: float) -> None:
        """Move the box, where there is but one placement."""
        place = replace(self.places[0], **{name: value})
        _check_boxes([place], self.generator.size)
        self.places = [place]
        self.reset_best()

    def state_dict(self) -> State:
        """Return copies of all that the run's future depends on."""
        return super().state_dict() | {"going": self.both.going}

    def load_state_dict(self, state: State) -> None:
        """Go to a saved state; see :meth:`Run.load_state_dict`."""
        super().load_state_dict(state)
        self.both.stop(state["going"].cpu())


def _leading(score: Tensor, group: Tensor, count: int) -> list[Tensor]:
    """Return for each picture the rows of its placements with the highest scores [n], best first."""
    own = [torch.nonzero(group == i).flatten() for i in range(int(group.max()) + 1)]
    return [rows[score.cpu()[rows].argsort(descending=True, stable=True)[:count]] for rows in own]


def _each(texts: Texts, n: int) -> list[str]:
    """Return n texts from one or n."""
    found = [texts] if isinstance(texts, str) else list(texts)
    found *= n if len(found) == 1 else 1
    check_prompts(found)
    if len(found) != n:
        raise ValueError(f"{n} pictures require one foreground and background or as many, not {len(found)}.")
    return found


def _check_boxes(places: Sequence[Placement], side: int) -> None:
    for place in places:
        if min(place.box(side, side)[2:]) < MIN_BOX:
            raise ValueError(
                f"The placement {place} is less than {MIN_BOX} pixels wide or high on a picture of {side}, "
                "too small for the perceptual loss; take a larger alpha."
            )
