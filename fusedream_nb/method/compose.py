"""FuseDream-Composition (Algorithm 2): a foreground and a background made for each other."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from fusedream_nb.models import Models
from fusedream_nb.models.generators import Generator, Latent

from . import augment
from .barrier import Rival, rule
from .budgets import Budget
from .duet import ComposeStep, Duet, Pair, Run, climb_together
from .fuse import JUDGE_SEED, START_SEED, dials, knobs_of, paired, sized
from .latents import OverParameterised, Weights, any_basis, top_k
from .placement import PLACEMENTS, Placement
from .scores import AugCLIP
from .steer import Desk, Dial, Recipe, Steerable, changed

SMALLEST = 17  # pixels a side that LPIPS's SqueezeNet can still read
RULE, BOX = ("rival", "beta", "lam"), ("alpha", "x", "y")  # the knobs of a rule and of a placement


def compose(
    prompt: str,
    models: Models,
    *,
    foreground: str | None = None,
    background: str | None = None,
    placements: Placement | Sequence[Placement] = PLACEMENTS,
    rival: Rival = "bilevel",
    beta: float = 1.0,
    lam: float = 0.5,
    seed: int = 0,
    budget: str | Budget | None = None,
    M: int | None = None,
    k: int | None = None,
    steps: int | None = None,
    copies: int | None = None,
    lr: float | None = None,
    policy: Collection[str] = augment.ALL,
    weights: Weights = "scalar",
    generators: Pair | None = None,
    batch: int | None = None,
    keep: int | None = None,
) -> Steerable[ComposeStep]:
    """Compose a picture of a foreground and a background (FuseDream, Algorithm 2), a step at a time.

    All placements run side by side from one start, with the same randomness: each is the same as
    alone, up to rounding. ``foreground`` and ``background`` say what the two starts are ranked by
    (default: the whole prompt, as in the paper). ``rival`` with ``beta`` or ``lam`` is a rule of
    :mod:`.barrier`. ``generators`` make the foreground and the background (default: the models' one).
    ``batch`` placements are in memory at a time. With ``keep``, only that many, the best by fixed
    AugCLIP, go on after a quarter of the steps. The other arguments are those of ``fusedream``.
    The picture is the last step's ``blended()``.
    Raises ValueError, before any work, for an empty prompt or numbers out of range.
    """
    places = (placements,) if isinstance(placements, Placement) else tuple(placements)
    pair = generators or (models.generator, models.generator)
    texts = [prompt, foreground or prompt, background or prompt]
    paired(texts, seed)
    sizes = sized(budget, M=M, k=k, steps=steps, copies=copies, lr=lr)
    fixed = augment.draw(1, sizes.judged_copies, torch.Generator().manual_seed(JUDGE_SEED))
    augment.draw(1, sizes.copies, torch.Generator(), policy)
    duet = Duet(
        pair,
        AugCLIP(models.clip, prompt, sizes.copies, policy=policy),
        AugCLIP(models.clip, prompt, sizes.judged_copies, fixed=fixed),
        models.perceptual,
        rule(rival, beta=beta, lam=lam),
        max(1, 6 * 64**2 // max(g.size for g in pair) ** 2) if batch is None else batch,
        len(places) if keep is None else keep,
    )
    _check(places, duet)
    options = changed(
        compose, foreground=foreground, background=background, placements=places, rival=rival, beta=beta,
        lam=lam, policy=policy, weights=weights, generators=generators, batch=batch, keep=keep,
    )  # fmt: skip
    knobs = {**knobs_of(sizes, policy), "rival": rival, "beta": beta, "lam": lam, "prompt": [prompt]}
    if len(places) == 1:
        knobs |= {name: getattr(places[0], name) for name in BOX}
    return Steerable(
        partial(_run, texts, models, places, seed, sizes, policy, weights, duet),
        models,
        Recipe("compose", [prompt], [seed], sizes, options),
        knobs,
    )


def _run(
    texts: list[str],
    models: Models,
    places: tuple[Placement, ...],
    seed: int,
    sizes: Budget,
    policy: Collection[str],
    weights: Weights,
    duet: Duet,
    desk: Desk,
) -> Iterator[ComposeStep]:
    began = time.monotonic()
    rng = torch.Generator().manual_seed(seed)
    duet = replace(duet, score=copy.copy(duet.score), judge=copy.copy(duet.judge))
    bases = []
    for text, generator in zip(texts[1:], duet.generators, strict=True):
        if desk.saved:
            bases.append(any_basis(generator, 1, sizes.k))
        else:
            bases.append(_basis(text, models, generator, sizes, policy, rng))
    runs = []
    for place in places:
        own = torch.Generator()
        own.set_state(rng.get_state())
        foreground, background = (OverParameterised.start(basis, weights, [own]) for basis in bases)
        runs.append(Run(place, foreground, background, own))
    desk.dials |= _dials(runs, duet, desk)
    yield from climb_together(runs, duet, steps=sizes.steps, lr=sizes.lr, began=began, desk=desk)


def _basis(
    text: str,
    models: Models,
    generator: Generator,
    sizes: Budget,
    policy: Collection[str],
    rng: torch.Generator,
) -> Latent:
    """Return the k best starts [1, k, dim] for a text."""
    same = augment.draw(1, sizes.start_copies, torch.Generator().manual_seed(START_SEED), policy)
    best, _ = top_k(
        generator, AugCLIP(models.clip, text, sizes.start_copies, fixed=same), sizes.M, sizes.k, rng
    )
    return best.map(lambda t: t[None])


def _dials(runs: list[Run], duet: Duet, desk: Desk) -> dict[str, Dial]:
    """Return what turns the knobs of a composition, by name; a box is moved where there is but one."""
    now = {name: desk.knobs[name] for name in RULE}

    def steer(name: str, value: Any) -> None:  # noqa: ANN401  a name or a number
        new = {**now, name: value}
        duet.rule = rule(new["rival"], beta=new["beta"], lam=new["lam"])
        now.update(new)

    def move(name: str, value: float) -> None:
        place = replace(runs[0].placement, **{name: value})
        _check((place,), duet)
        runs[0].placement = place
        desk.anew = True

    assert isinstance(duet.score, AugCLIP) and isinstance(duet.judge, AugCLIP)
    return {
        **dials(duet.score, duet.judge, desk, 1),
        **{name: partial(steer, name) for name in RULE},
        **({name: partial(move, name) for name in BOX} if len(runs) == 1 else {}),
    }


def _check(places: tuple[Placement, ...], duet: Duet) -> None:
    if not places:
        raise ValueError("A composition wants at least one placement; this list is empty.")
    if duet.batch < 1 or duet.keep < 1:
        raise ValueError(f"Batch and keep must be at least 1, not {min(duet.batch, duet.keep)}.")
    side = duet.generators[1].size
    for place in places:
        if min(place.box(side, side)[2:]) < SMALLEST:
            raise ValueError(
                f"The placement {place} is less than {SMALLEST} pixels wide or high on a picture of {side}, "
                "too small for the perceptual loss; take a larger alpha."
            )
