"""FuseDream for single pictures (Algorithm 1 of the paper), and climbs of a score of your own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from fusedream_nb.models import Models
from fusedream_nb.models.generators import Generator, Latent, near
from fusedream_nb.models.pictures import Picture, PictureFile, read_picture, taken

from . import views
from .bank import START_SEED as START_SEED
from .bank import start_views, widened
from .budgets import Budget
from .config import RunConfig, Seeds, Sizes, Texts, configure
from .latents import OverParameterised, Parameterisation, Plain, Sampler, Weights, normal_y, top_k
from .run import Run, S, Step
from .scores import AugCLIP, Rng, Score

Start: TypeAlias = "Parameterisation | Latent | Picture"
StartY = Literal["classes", "normal", "nearest"]
FIXED_SEED = 20_211_203  # of the fixed augmentations; any constant does


def fusedream(
    prompt: Texts,
    models: Models,
    *,
    seed: Seeds = 0,
    budget: Sizes = None,
    policy: Collection[str] = views.ALL,
    weights: Weights | Literal["plain"] = "scalar",
    y: StartY = "classes",
    start: Start | None = None,
    **sizes: float | None,
) -> FusedreamRun:
    """Return a run that makes a picture from words by climbing AugCLIP (FuseDream, Algorithm 1).

    Args:
        prompt: one text, or several: one picture each, the same as alone up to rounding.
        models: what is climbed and what scores it.
        seed: one for all prompts, or one each; several seeds for one prompt make several pictures.
        budget: a budget's name, or a Budget of your own; None: that of the environment, else quick.
        policy: the augmentations that are on, or the strength of each in [0, 1].
        weights: one scalar a basis latent, from 1/k (the paper); one softmaxed logit a "coordinate" (the
            authors' code); or "plain", which climbs the mean of the basis, one latent.
        y: the start's class embedding: any class's, from N(0, I) where it is "normal" (Fig. 12), or of the
            ten classes whose names CLIP finds "nearest" to the prompt.
        start: where to begin: a Latent [n, …] or a parameterisation of n latents instead of a search; or a
            picture, a path, Pillow's, an array of uint8 or [3, h, w]: a VQGAN's codes of it, or the k of M
            samples that CLIP finds nearest to it.
        sizes: fields of the budget to replace: M, k, steps, copies, lr, …. Where a bank ships for every seed,
            and neither M nor a Budget is given, M is the bank's.

    The picture is the last Step's ``best_image`` [n, 3, h, w] in [-1, 1].
    Raises ValueError, before any work, for an empty prompt or numbers out of range.
    """
    options = {"policy": policy, "weights": weights, "y": y, "start": as_start(start)}
    config = configure("fusedream", prompt, seed, budget, sizes, models, **options)
    if not isinstance(budget, Budget) and sizes.get("M") is None and y == "classes" and start is None:
        config = replace(config, budget=widened(config.budget, models, config.seeds, policy))
    return FusedreamRun(models, config)


def fixed_score(models: Models, config: RunConfig) -> AugCLIP:
    """Return AugCLIP on the fixed views by which the best picture of a run is found."""
    copies = config.budget.judged_copies
    fixed = views.sample(1, copies, torch.Generator().manual_seed(FIXED_SEED))
    return AugCLIP(models.clip, config.prompts, copies, fixed=fixed)


class AugCLIPRun(Run[S]):
    """What the runs share that climb AugCLIP: prompts, one a picture, and a search for the start."""

    def __init__(self, models: Models, config: RunConfig, **knobs: Any) -> None:  # noqa: ANN401
        self.models, self.config = models, config
        copies, self.policy = config.budget.copies, config.options.get("policy", views.ALL)
        self.aug = AugCLIP(models.clip, config.prompts, copies, policy=self.policy)
        self.fixed = fixed_score(models, config)
        strength = views.strengths(self.policy)
        own = {"copies": copies, **{name: strength.get(name, 0.0) for name in views.ALL}, **knobs}
        own["prompt"] = config.prompts
        super().__init__(models.generator, self.aug, **config.loop(), fixed_score=self.fixed, **own)
        self.worded, self.seeded = [self.aug, self.fixed], self.rngs
        self.setters["copies"] = self.aug.set_copies
        self.setters |= {name: partial(self.aug.set_strength, name) for name in views.ALL}

    def search(self, texts: Sequence[str], y: StartY = "classes", like: Tensor | None = None) -> Latent:
        """Return the k best of M samples for each text [n, k, …] (Algorithm 1, lines 1 and 2).

        Those of one seed, and one law, share the M pictures. The best are those nearest to ``like`` [1, dim],
        if it is given.
        """
        sizes, models, found = self.config.budget, self.models, dict[int, Latent]()
        same = start_views(sizes.start_copies, self.policy)
        runs = list(zip(texts, self.config.seeds, strict=True))
        for text, seed in dict.fromkeys((text if y == "nearest" else None, seed) for text, seed in runs):
            law: Sampler | None = normal_y(models.generator) if y == "normal" else None
            law = near(text, models.generator, models.clip) if text else law
            rows = [i for i, run in enumerate(runs) if run[1] == seed and text in (None, run[0])]
            rank = AugCLIP(models.clip, [texts[i] for i in rows], sizes.start_copies, fixed=same)
            rank.text = rank.text if like is None else like.expand(len(rows), -1)
            rng = self.seeded[rows[0]]
            best, _ = top_k(models.generator, rank.table, sizes.M, sizes.k, rng, sample=law)
            for place, i in enumerate(rows):
                found[i] = best[place : place + 1]
                self.seeded[i].set_state(rng.get_state())
        return Latent.cat([found[i] for i in range(len(runs))])


class FusedreamRun(AugCLIPRun[Step]):
    """A run of :func:`fusedream`."""

    method, parts = "fusedream", (PictureFile,)
    defaults = {"policy": views.ALL, "weights": "scalar", "y": "classes", "start": None}  # noqa: RUF012

    def __init__(self, models: Models, config: RunConfig) -> None:
        start, y = config.options["start"], config.options["y"]
        if y not in get_args(StartY):
            known = ", ".join(get_args(StartY))
            raise ValueError(f"No start of the classes is called {y!r}; known are {known}.")
        super().__init__(models, config, noise=0.0)
        if start is not None and not (is_picture(start) and not hasattr(models.generator, "encode")):
            self._start = given(start, len(config.seeds), models.generator)

    def begin(self) -> Parameterisation:
        """Return the k best of M samples for each prompt, or for a picture, over-parameterised."""
        options, clip, like = self.config.options, self.models.clip, None
        if options["start"] is not None:
            with torch.no_grad():
                like = clip.encode_image(read_picture(options["start"])[None].to(self.models.device))
        basis, weights = self.search(self.config.prompts, options["y"], like), options["weights"]
        if weights == "plain":
            return Plain(basis.map(lambda t: t.mean(1)))
        return OverParameterised.start(basis, weights, self.seeded)

    def restored(self, tensors: list[Tensor]) -> Parameterisation:
        """Return a saved run's parameterisation from its tensors."""
        weights = self.config.options["weights"]
        check_basis(tensors, self.config)
        return Plain(Latent(*tensors)) if weights == "plain" else OverParameterised.of(tensors, weights)


def check_basis(tensors: Sequence[Tensor], config: RunConfig) -> None:
    """Raise ValueError for a saved over-parameterisation of another number of basis latents."""
    if config.options.get("weights") != "plain" and tensors[-1].shape[1] != config.budget.k:
        raise ValueError("The saved state is of a run with other sizes; resume with the same arguments.")


def is_picture(start: Any) -> bool:  # noqa: ANN401
    """Whether a start is a picture."""
    return isinstance(start, PictureFile | Tensor)


def as_start(start: Any) -> Any:  # noqa: ANN401
    """Return a start, if there is one, with a picture of whatever kind as a file or a tensor."""
    latents = start is None or isinstance(start, Latent) or hasattr(start, "combine")
    return start if latents else taken(start)


def given(start: Any, n: int, generator: Generator) -> Parameterisation:  # noqa: ANN401
    """Return a start as a parameterisation; ValueError unless it is one of n latents."""
    start = as_start(start)
    if is_picture(start):
        if not hasattr(generator, "encode"):
            raise ValueError("This generator has no encoder, so it cannot begin at a picture.")
        canvas = getattr(generator, "canvas", (generator.size, generator.size))
        image = read_picture(start, canvas)[None]
        start = generator.encode(image).map(lambda t: t.expand(n, *t.shape[1:]))
    begin = Plain(start) if isinstance(start, Latent) else start
    if len(begin.combine()) != n:
        raise ValueError(f"{n} pictures require a start of {n} latents, not {len(begin.combine())}.")
    return begin


def climb(
    generator: Generator,
    score: Score,
    start: Parameterisation,
    rng: Rng,
    *,
    steps: int,
    lr: float = 5e-3,
    fixed_score: Score | None = None,
) -> Run[Step]:
    """Return a run that maximises a score of your own by Adam (FuseDream, Algorithm 1, line 3).

    ``fixed_score`` decides which picture is best (default: the score itself, with its randomness); after each
    step the latents are clamped to the generator's valid set.
    """
    return Run(generator, score, rng, steps=steps, lr=lr, start=start, fixed_score=fixed_score, noise=0.0)
