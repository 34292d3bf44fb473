"""What a run was asked for: validated once, and as JSON holds it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from operator import index
from typing import TYPE_CHECKING, Any

import torch

from fusedream_nb.models.generators import Latent

from .budgets import Budget
from .budgets import budget as find_budget

if TYPE_CHECKING:
    from fusedream_nb.models import Models

Texts = str | Sequence[str]
Seeds = int | Sequence[int]
Sizes = str | Budget | None  # a budget's name, one of your own, or that of the environment
# What older records hold, with its one value.
GONE = {"power": 1.0, "rotation": 0.0, "tilt": 0.0, "stop": -math.inf}


@dataclass(frozen=True)
class RunConfig:
    """What a run was asked for: ``options`` are the method's arguments other than prompt, seed and budget."""

    method: str
    prompts: list[Any]
    seeds: list[int]
    budget: Budget
    options: dict[str, Any]

    def loop(self) -> dict[str, Any]:
        """Return what every Run takes from it: randomness for each seed, the steps and Adam's rate."""
        rngs = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        return {"rng": rngs, "steps": self.budget.steps, "lr": self.budget.lr}


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a number, or a row of numbers, of NumPy or PyTorch as Python's own; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") and value.ndim < 2 else value


def as_knob(name: str, value: Any, now: Any) -> Any:  # noqa: ANN401
    """Return a knob's value as Python's own, in a list where it is one now; ValueError for others in it."""
    value = plain(value)
    if not isinstance(now, list):
        return value
    several = isinstance(value, Iterable) and not isinstance(value, str)
    listed = [plain(each) for each in value] if several else [value]
    if not all(isinstance(each, str if name == "prompt" else (int, float)) for each in listed):
        raise ValueError(f"{name} is set to {'texts' if name == 'prompt' else 'numbers'}, not {value!r}.")
    return listed


def packed(value: Any) -> Any:  # noqa: ANN401
    """Return an option as JSON holds it; TypeError for what it does not, such as a picture."""
    if is_dataclass(value) and not isinstance(value, type | Latent):
        return {"is": type(value).__name__, **packed(vars(value))}
    if isinstance(value, Mapping):
        return {name: packed(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [packed(each) for each in value]
    value = plain(value)
    if value is None or isinstance(value, str | int | float | list):
        return value
    raise TypeError(f"an argument is a {type(value).__name__}")


def unpacked(value: Any, parts: Sequence[type]) -> Any:  # noqa: ANN401
    """Return an option from what :func:`packed` made of it; ``parts`` are the dataclasses it may hold.

    Raises ValueError for a setting of an older version that has no effect any more.
    """
    if isinstance(value, Mapping):
        own = {name: unpacked(each, parts) for name, each in value.items()}
        for name, only in GONE.items():
            if own.pop(name, only) not in (only, None):
                raise ValueError(
                    f"The picture was made with {name} = {value[name]}, which this version does not have; "
                    "it can be shown, but not made again."
                )
        kinds = {part.__name__: part for part in parts}
        return kinds[own.pop("is")](**own) if "is" in own else own
    return tuple(unpacked(each, parts) for each in value) if isinstance(value, list) else value


def configure(
    method: str,
    prompt: str | Sequence[Any],
    seed: Seeds,
    budget: Sizes,
    sizes: Mapping[str, Any],
    models: Models | None = None,
    **options: Any,  # noqa: ANN401
) -> RunConfig:
    """Return a validated RunConfig: one prompt with many seeds, many prompts with one, or one each.

    ``sizes`` are fields of a Budget in place of the budget's own, unless None; ``models`` choose the budget
    where none is named.
    Raises TypeError for a size that no Budget has, and what :func:`validate` raises.
    """
    base = budget if isinstance(budget, Budget) else find_budget(budget, models)
    unknown = set(sizes) - {field.name for field in fields(Budget)}
    if unknown:
        raise TypeError(f"{method} takes no argument called {sorted(unknown)[0]!r}.")
    own = replace(base, **{name: plain(value) for name, value in sizes.items() if value is not None})
    alone = isinstance(prompt, str) or not isinstance(prompt, Iterable)
    prompts, seeds = [prompt] if alone else list(prompt), whole(seed)
    if not all(isinstance(each, str) for each in prompts):
        raise ValueError(f"A prompt of {method} is a text; a picture is a start, or a prompt of transport.")
    if min(len(prompts), len(seeds)) == 1:
        prompts, seeds = prompts * len(seeds), seeds * len(prompts)
    elif len(prompts) != len(seeds) and prompts and seeds:
        raise ValueError(f"{len(prompts)} prompts require one seed or as many, not {len(seeds)}.")
    config = RunConfig(method, prompts, seeds, own, options)
    validate(config)
    return config


def whole(seed: Any) -> list[int]:  # noqa: ANN401
    """Return one or more seeds of any integer type as ints; ValueError for what is no whole number."""
    try:
        one = not isinstance(seed, Iterable) or getattr(seed, "shape", None) == ()  # an array of one number
        return [index(each) for each in ([seed] if one else seed)]
    except TypeError as error:
        raise ValueError(f"A seed is a whole number from 0 to 2^63 - 1, not {seed!r}.") from error


def validate(config: RunConfig) -> None:
    """Raise ValueError for an empty prompt, a seed out of range, and sizes out of range."""
    sizes = config.budget
    check_prompts(config.prompts)
    if not config.seeds or any(s < 0 or s >= 2**63 for s in config.seeds):
        raise ValueError("A seed is a whole number from 0 to 2^63 - 1.")
    if not 1 <= sizes.k <= sizes.M:
        raise ValueError(f"The start keeps k of M samples, so 1 ≤ k ≤ M; got k = {sizes.k}, M = {sizes.M}.")
    if sizes.steps < 0:
        raise ValueError(f"The number of steps must be 0 or more, not {sizes.steps}.")
    if sizes.copies < 1:
        raise ValueError(f"The number of augmented copies must be at least 1, not {sizes.copies}.")
    check_lr(sizes.lr)


def check_prompts(prompts: Sequence[Any]) -> None:
    """Raise ValueError where there is no prompt, or an empty text among them."""
    if not prompts or any(isinstance(prompt, str) and not prompt.strip() for prompt in prompts):
        raise ValueError("The prompt is empty; say in words what the picture should show.")


def check_lr(lr: float) -> None:
    """Raise ValueError unless a learning rate is above 0, and finite."""
    if not 0 < lr < math.inf:
        raise ValueError(f"The learning rate must be above 0, and finite, not {lr}.")
