"""A run of a method: Algorithm 1 of FuseDream as an iterator, whose attributes are its state.

Iterate over it for its Steps; in between, set knobs, save its state, or go back to a saved one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

from fusedream_nb.models.generators import Generator, Latent

from .barrier import Adam, Gradient, State
from .budgets import Budget
from .config import RunConfig, as_knob, check_lr, check_prompts, validate
from .latents import Parameterisation, Plain, noisy
from .scores import Rng, Score

if TYPE_CHECKING:
    from fusedream_nb.models import Models

CHECK_EVERY = 5  # steps between two looks at whether the picture is the best so far


@dataclass(frozen=True)
class Step:
    """One step of a run for n pictures at once; index 0 is the start, before any step.

    ``image`` [n, 3, h, w] in [-1, 1] is the picture *after* the step, and ``score`` [n] its own, on fresh
    random views. ``best_score`` [n] is taken on fixed ones, and ``best_image`` is its picture.
    ``knobs`` are the values in force; ``seconds`` count from the run's beginning.
    """

    index: int
    total: int
    image: Tensor
    score: Tensor
    best_image: Tensor
    best_score: Tensor
    latent: Latent
    knobs: dict[str, Any]
    seconds: float

    def pictures(self) -> Tensor:
        """Return the pictures [m, 3, h, w] to keep, one a result."""
        return self.best_image

    def fixed_score(self) -> Tensor:
        """Return the score [m] of each of :meth:`pictures`, on fixed views."""
        return self.best_score

    def frames(self, *, best: bool = False) -> list[list[Tensor]]:
        """Return, for each result, the pictures [3, h, w] that a film shows side by side; or its ``best``."""
        return [[image] for image in (self.best_image if best else self.image)]

    def losses(self) -> dict[str, Tensor]:
        """Return what is to fall, [n] by name, beside the score that is to rise."""
        return {}


S = TypeVar("S", bound=Step)


class Refused(ValueError):
    """A value that a knob does not take; the run is as it was, and can go on."""


class Run(Iterator[S]):
    """Adam on a score over a latent (FuseDream, Algorithm 1, line 3); the base of every method's run.

    ``models`` and ``config`` are what it was made of, ``step`` is the last one. ``knobs`` are the values in
    force and ``wanted`` those from the next step on; ``log`` holds the changes, each with the step after
    which it was made. A method says where it begins (:meth:`begin`) and what score it climbs; another
    :meth:`direction`, :meth:`evaluate` or :meth:`own` where that is not all.
    """

    method: ClassVar[str] = "climb"
    steps: ClassVar[type[Step]] = Step  # what it gives
    defaults: ClassVar[dict[str, Any]] = {}  # of the options
    parts: ClassVar[tuple[type, ...]] = ()  # dataclasses that the options may hold
    renamed: ClassVar[dict[str, str]] = {}  # knobs that records until format 3 call otherwise
    model: ClassVar[str] = "stickers"  # what it draws with where no model is named
    keeper: ClassVar[Callable[[Run[Any]], Iterator[Any]] | None] = None  # wraps loops: see records/resume.py
    kept: ClassVar[tuple[str, ...]] = ("index", "total", "log", "best", "best_score")  # beside what moves
    together: ClassVar[int] = 4  # pictures in a batch: more take more memory and, on a CPU, hardly less time
    models: Models
    config: RunConfig

    def __init__(
        self,
        generator: Generator,
        score: Score,
        rng: Rng,
        *,
        steps: int,
        lr: float,
        start: Parameterisation | None = None,
        fixed_score: Score | None = None,
        **knobs: Any,  # noqa: ANN401
    ) -> None:
        self.generator, self.score, self.fixed_score = generator, score, fixed_score or score
        self.rng, self.rngs = rng, [rng] if isinstance(rng, torch.Generator) else list(rng)
        self.total, self.noise, self.index = steps, 0.0, 0
        self.set_lr(lr)
        self.knobs: dict[str, Any] = {"lr": lr, "steps": steps, **knobs}
        self.wanted = dict(self.knobs)
        base = ("lr", "steps", "noise", "prompt")
        self.setters: dict[str, Callable[[Any], None]] = {name: getattr(self, f"set_{name}") for name in base}
        self.worded: list[Any] = []  # the scores whose ``text`` the prompts are
        self.log: list[dict[str, Any]] = []
        self.step: S | None = None
        self._start = start
        self._gradient: Gradient = ()
        self._before: list[Tensor] = []
        self._resumed = self._closed = self._reset = False
        self.image = self.value = self.best_score = torch.empty(0)
        self.best: dict[str, Tensor] = {}

    # What a method says.

    @classmethod
    def from_config(cls, config: RunConfig, models: Models) -> Self:
        """Return a run that has not begun, of what another was asked for; raises as :func:`validate`."""
        validate(config)
        return cls(models, replace(config, options={**cls.defaults, **config.options}))  # type: ignore[call-arg, arg-type]

    @classmethod
    def upgraded(cls, config: RunConfig) -> RunConfig:
        """Return a config of today from one of a record until format 3."""
        return config

    @classmethod
    def sizes(cls, budget: Budget) -> Budget:
        """Return a budget as this method reads it where nothing else is asked for."""
        return budget

    @classmethod
    def batches(cls, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[list[str], list[int]]]:
        """Return the prompts and seeds of each batch in which every prompt gets every seed."""
        pairs = list(dict.fromkeys((prompt, seed) for prompt in prompts for seed in seeds))
        batches = [pairs[i : i + cls.together] for i in range(0, len(pairs), cls.together)]
        return [([prompt for prompt, _ in batch], [seed for _, seed in batch]) for batch in batches]

    def begin(self) -> Parameterisation:
        """Return where the run starts, after the search for it if there is one."""
        raise TypeError(f"{type(self).__name__} does not say where it begins.")

    def restored(self, tensors: list[Tensor]) -> Parameterisation:
        """Return what :meth:`begin` returns, made of its tensors."""
        return Plain(Latent(*tensors))

    def direction(self, gradient: Gradient) -> Gradient:
        """Return v for each parameter, against which Adam moves it."""
        return [-g for g in gradient]

    def own(self) -> dict[str, Any]:
        """Return the fields of :attr:`steps` beyond those of every Step, or in their place."""
        return {}

    def words(self) -> list[list[str]]:
        """Return the texts that each picture should show."""
        prompts, n = list(self.knobs["prompt"]), len(self.config.seeds)
        return [[text] for text in (prompts * n if len(prompts) == 1 else prompts)]

    # The algorithm.

    def __iter__(self) -> Iterator[S]:
        """Return the run itself or, before its first step, what keeps its steps and goes on from them."""
        return self if Run.keeper is None or self.step is not None else Run.keeper(self)

    def __next__(self) -> S:
        """Make the next step: what :meth:`set` asked for, then Algorithm 1, line 3, once.

        The first is the start, index 0; after :meth:`load_state_dict` it is the saved one again.
        Raises Refused for a value that a knob does not take, and FloatingPointError, naming the step,
        where the score is not a finite number.
        """
        if self._moves():
            gradient = self._gradient or self.evaluate()  # of the score of random views
            self.adam.step(self.direction(gradient), self.lr)
            self.start.project_(self.generator)
            self.index += 1
        self._gradient = self.evaluate(look=not self._resumed)
        self.step = self._report()
        return self.step

    def evaluate(self, *, look: bool = False) -> Gradient:
        """Draw the pictures, score random views of them, and return the score's gradient (Eq. 2 to 4).

        With ``look``, the best is kept too. After the last step there is no gradient, and no randomness
        has been taken.
        """
        last = self.index >= self.total
        with torch.set_grad_enabled(not last):
            latent = self.start.combine()
            image = self.generator.decode(latent)
            self.image = image.detach()
            if look:
                self.keep_best({"image": self.image})
            self._before, same = [rng.get_state() for rng in self.rngs], [r.clone_state() for r in self.rngs]
            if noise := 0.0 if last else self.noise:
                image = self.generator.decode(noisy(latent, noise, self.rng))
            value = self.score(image, self.rng)
            gradient = () if last else torch.autograd.grad(value.sum(), self.start.parameters())
        if noise:
            with torch.no_grad():
                value = self.score(self.image, same[0] if isinstance(self.rng, torch.Generator) else same)
        self.value = value.detach()
        self.check_finite(self.value)
        if last:
            self.rewind()
        return gradient

    @torch.no_grad()
    def keep_best(self, shown: dict[str, Tensor], score: Tensor | None = None) -> None:
        """Keep what is shown [n, …] where its score, by default the fixed one, is higher than the best's."""
        if not self.checks:
            return
        score = self.fixed_score(shown["image"], self.rng) if score is None else score
        if self._reset or not self.best:
            self.best, self.best_score = {name: t.clone() for name, t in shown.items()}, score
        better = score > self.best_score
        for name, t in shown.items():
            self.best[name] = torch.where(better.view(-1, *[1] * (t.ndim - 1)), t, self.best[name])
        self.best_score = torch.where(better, score, self.best_score)
        self._reset = False

    @property
    def checks(self) -> bool:
        """Whether this step's picture is looked at: it may be the best so far."""
        return self._reset or self.index % CHECK_EVERY == 0 or self.index >= self.total

    def check_finite(self, *values: Tensor) -> None:
        """Raise FloatingPointError, naming the step, unless all values are finite."""
        if not all(bool(torch.isfinite(value).all()) for value in values):
            raise FloatingPointError(
                f"The score is not a finite number at step {self.index} of {self.total}; "
                "lower the learning rate or take another seed."
            )

    def rewind(self) -> None:
        """Let go of the gradient, and take back the randomness that it took: it is evaluated again."""
        self._gradient = ()
        for rng, state in zip(self.rngs, self._before, strict=True):
            rng.set_state(state)

    @property
    def start(self) -> Parameterisation:
        """What is moved."""
        assert self._start is not None
        return self._start

    def _moves(self) -> bool:
        """Begin, or take the knobs; return whether a step is to be made before the pictures are drawn."""
        if self._closed:
            raise StopIteration
        if self.step is None:
            if not self._resumed:
                self._began = time.monotonic()
                self._start_at(self._start or self.begin())
            return False
        self._resumed = False
        if "steps" in self.knobs:
            self._take("steps")
        if self.index >= self.total:
            raise StopIteration
        for name in self.wanted:
            self._take(name)
        return True

    def _start_at(self, start: Parameterisation) -> None:
        self._start, self.adam = start, Adam([p.requires_grad_() for p in start.parameters()])

    def _report(self) -> S:
        known: dict[str, Any] = {"index": self.index, "total": self.total, "knobs": dict(self.knobs)}
        known |= {"image": self.image, "score": self.value, "latent": self.start.combine().map(Tensor.detach)}
        known |= {"best_image": self.best["image"], "best_score": self.best_score}
        known["seconds"] = time.monotonic() - self._began
        return self.steps(**known | self.own())  # type: ignore[return-value]

    # Knobs.

    def set(self, **knobs: Any) -> None:  # noqa: ANN401  numbers and texts
        """Ask for other values from the next step on; ValueError for a knob that this run has not."""
        for name in knobs:
            if name not in self.knobs:
                raise ValueError(f"This run has no knob called {name!r}; it has {', '.join(self.knobs)}.")
        self.wanted.update({name: as_knob(name, value, self.knobs[name]) for name, value in knobs.items()})

    def reset_best(self) -> None:
        """Begin the best again with the next step's picture: scores from then on mean something else."""
        self._reset = True

    def set_lr(self, lr: float) -> None:
        """Change Adam's rate, its moments kept; ValueError unless it is above 0."""
        check_lr(lr)
        self.lr = float(lr)

    def set_steps(self, steps: int) -> None:
        """Change the number of steps; with fewer than are done, the next one is the last."""
        self.total = max(int(steps), min(self.index + 1, self.total))

    def set_noise(self, std: float) -> None:
        """Change the standard deviation of the noise on the latents that are scored; ValueError below 0."""
        if not 0 <= std < math.inf:
            raise ValueError(f"The noise's standard deviation must be 0 or more, not {std}.")
        self.noise = float(std)

    def set_prompt(self, texts: Sequence[str]) -> None:
        """Climb other texts from now on, one for all pictures or one each; ValueError for an empty one."""
        check_prompts(texts)
        n = len(self.config.seeds)
        if len(texts) not in (1, n):
            raise ValueError(f"{n} pictures require one prompt or as many, not {len(texts)}.")
        vectors = self.models.clip.encode_text(texts)
        for score in self.worded:
            score.text = vectors
        self.reset_best()

    def _take(self, name: str) -> None:
        """Take a knob's wanted value; all but lr and steps make the gradient one of another score."""
        value = as_knob(name, self.wanted[name], self.knobs[name])
        if value == self.knobs[name]:
            return
        try:
            self.setters[name](value)
        except (ValueError, TypeError) as error:
            self.wanted[name] = self.knobs[name]
            raise Refused(f"{name}: {error}") from error
        self.knobs[name] = value
        self.log.append({"step": self.index, name: value})
        if name not in ("lr", "steps"):
            self.rewind()

    # Its state.

    def state_dict(self) -> State:
        """Return copies of all that the run's future depends on; ValueError before the first step."""
        if self.step is None:
            raise ValueError("A run that has not begun has no state; take a step first.")
        return {name: copy(getattr(self, name)) for name in self.kept} | {
            "method": self.method,
            "knobs": dict(self.knobs),
            "parameters": [p.detach().clone() for p in self.start.parameters()],
            "adam": self.adam.state_dict(),
            "rngs": list(self._before),
            "seconds": time.monotonic() - self._began,
        }

    def load_state_dict(self, state: State) -> None:
        """Go back, or on, to a saved state: the next step is the saved one again, without a search.

        Raises ValueError for the state of another method, or of a run with other sizes.
        """
        if state.get("method") != self.method or not state["knobs"].keys() <= self.knobs.keys():
            raise ValueError("The saved state is another method's; resume with the same call.")
        if "means" not in state["adam"]:
            raise ValueError("The saved state is another version's; begin the run again.")
        tensors = [t.detach().clone() for t in state["parameters"]]
        self._start_at(self._start or self.restored(tensors))
        mine = self.start.parameters()
        if [p.shape for p in mine] != [t.shape for t in tensors] or len(state["rngs"]) != len(self.rngs):
            raise ValueError("The saved state is of a run with other sizes; resume with the same arguments.")
        with torch.no_grad():
            for parameter, tensor in zip(mine, tensors, strict=True):
                parameter.copy_(tensor)
        for name, value in state["knobs"].items():
            if value != self.knobs[name]:
                self.setters[name](value)
                self.knobs[name] = value
        vars(self).update({name: copy(state[name]) for name in self.kept}, wanted=dict(self.knobs))
        self.adam.load_state_dict(state["adam"])
        self._before = [numbers.cpu() for numbers in state["rngs"]]
        self.rewind()
        self._began = time.monotonic() - state["seconds"]
        self.step, self._resumed, self._closed, self._reset = None, True, False, False

    def close(self) -> None:
        """End the run and let go of what it holds in memory; ``step`` and ``log`` stay."""
        self._closed, self._start, self._gradient = True, None, ()
        vars(self).pop("adam", None)
