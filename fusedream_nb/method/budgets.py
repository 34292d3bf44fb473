"""Every size in one file: of a run, and of what each figure repeats, for five budgets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fusedream_nb.models import resolve_device

if TYPE_CHECKING:
    from fusedream_nb.models import Models


@dataclass(frozen=True)
class Budget:
    """Sizes of one run.

    M samples for the start, of which k are kept (ranked on ``start_copies`` augmented copies), then
    ``steps`` of Adam at rate ``lr`` on ``copies`` copies; ``judged_copies`` copies, the same at each
    step, decide which picture is best.
    """

    name: str
    M: int
    k: int
    steps: int
    copies: int
    lr: float
    start_copies: int
    judged_copies: int

    @property
    def evaluations(self) -> int:
        """Pictures that the generator draws in a run: M for the start, then one per step and the first."""
        return self.M + self.steps + 1

    @property
    def equal_steps(self) -> int:
        """Steps, without a search for the start, that cost the generator as much as a whole run.

        A backward pass costs about twice a forward pass, so three samples of the start equal one step.
        """
        return self.steps + self.M // 3

    @property
    def counts(self) -> bool:
        """Whether a claim's verdict means anything at these sizes; at smoke a notebook only has to run."""
        return self.name != "smoke"


class FigureBudget(Budget):
    """The sizes of a figure's runs, and as further attributes what the figure repeats: ``sizes.seeds``.

    ``dataclasses.replace`` changes the runs' sizes, and leaves the repeats behind.
    """

    def __init__(self, repeats: Mapping[str, Any] | None = None, **sizes: Any) -> None:  # noqa: ANN401
        super().__init__(**sizes)
        self.__dict__.update(repeats or {})

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  asked only for what is not there
        raise AttributeError(f"These sizes have no {name!r}; they have {', '.join(vars(self))}.")


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("smoke", M=12, k=2, steps=3, copies=2, lr=2e-2, start_copies=1, judged_copies=2),
        Budget("quick", M=400, k=5, steps=100, copies=12, lr=2e-2, start_copies=4, judged_copies=24),
        Budget("gallery", M=10_000, k=5, steps=150, copies=12, lr=2e-2, start_copies=4, judged_copies=50),
        Budget("colab", M=2000, k=5, steps=300, copies=12, lr=1e-2, start_copies=4, judged_copies=50),
        Budget("paper", M=10_000, k=5, steps=1000, copies=50, lr=5e-3, start_copies=10, judged_copies=100),
    )
}

# A row is one size at smoke, quick, gallery, colab, paper; None leaves it as the budget has it.
FIGURES: dict[str, dict[str, tuple[Any, ...]]] = {
    "start": {"M": (None, 10_000, None, None, None)},  # notebook 00: seed 0 has a bank that ships
    # 01: pictures attacked, steps of PGD
    "fd-02": {"pictures": (4, 50, 50, 50, 50), "attack_steps": (2, 10, 10, 10, 10)},
    "fd-03": {  # 02: dogs that climb, random pictures among which they are found, batch of climbs
        "steps": (4, 60, 80, 150, 500),
        "copies": (None, 8, 8, None, None),
        "runs": (3, 20, 20, 20, 20),
        "pool": (60, 800, 2000, 2000, 4000),
        "at_once": (3, 5, 5, 5, 5),
    },
    "fd-15": {  # 03: the seeds' bank, prompts, seeds, copies of a picture whose noise is measured
        "bank": (12, 10_000, 10_000, 6000, 50_000),
        "steps": (2, 30, 45, 150, 1000),
        "copies": (2, 6, 8, 12, 50),
        "prompts": (5, 10, 10, 10, 10),
        "seeds": (1, 2, 3, 3, 5),
        "measured_copies": (64, 192, 384, 384, 384),
    },
    "fd-04": {  # 04: the values of M and of k, and the M of Figure 12, which has no bank
        "steps": (2, 40, 50, 150, 1000),
        "copies": (2, 4, 8, 8, 50),
        "Ms": ((1, 4, 12), (1, 400, 10_000), (1, 400, 10_000), (1, 100, 2000), (1, 100, 1000, 10_000)),
        "ks": ((1, 2, 3), (1, 5, 15), (1, 5, 15), (1, 5, 15), (1, 5, 10, 15)),
        "far": (12, 400, 400, 2000, 10_000),
    },
    # 05: the seeds' bank, of which a run is charged M; seeds, of three methods, of many prompts; runs at once
    "fd-01": {
        "bank": (60, 10_000, 10_000, 2500, 50_000),
        "M": (None, 100, 100, 500, None),
        "steps": (2, 30, 50, 150, None),
        "copies": (None, 4, 6, 8, None),
        "judged_copies": (None, 8, 24, 24, None),
        "seeds": (3, 5, 5, 5, 5),
        "compared": (3, 5, 12, 5, 5),
        "few": (1, 2, 3, 3, 5),
        "together": (4, 12, 15, 5, 5),
        "pairs": (2, 12, 20, 100, 200),
    },
    "fd-17": {  # 06: prompts, BasinCMA's population
        "M": (None, 150, 300, 500, None),
        "steps": (6, 40, 50, 200, None),
        "copies": (None, 4, 6, 8, None),
        "judged_copies": (None, 6, 24, 24, None),
        "prompts": (2, 5, 5, 5, 5),
        "population": (4, 6, 12, 12, 18),
    },
    "fd-05": {  # 07: the seeds' bank, seeds measured, seeds shown, steps at each of the 18 placements
        "bank": (24, 10_000, 10_000, 10_000, 100_000),
        "steps": (None, 45, 80, 150, None),
        "copies": (None, 4, 6, 8, None),
        "lr": (None, 4e-2, None, None, None),
        "seeds": (2, 8, 8, 5, 10),
        "shown": (2, 3, 3, 3, 3),
        "search_steps": (1, 12, 18, 50, 1000),
    },
    "fd-11": {  # 08: prompts
        "M": (None, 10_000, None, None, None),
        "steps": (2, 15, 30, 100, None),
        "copies": (None, 4, 8, 8, None),
        "lr": (None, 5e-2, None, None, None),
        "prompts": (2, 10, 10, 5, 10),
    },
    # 09: the seeds' bank, seeds, how many placements go on (0: one is tried), seeds of Figure 10, those kept
    "fd-09": {
        "bank": (24, 10_000, 10_000, 10_000, 500_000),
        "steps": (2, 25, 60, 100, None),
        "copies": (None, 4, 8, 8, None),
        "judged_copies": (None, 8, 24, 24, None),
        "lr": (None, 4e-2, None, None, None),
        "seeds": (1, 5, 5, 5, 5),
        "search": (0, 0, 1, 0, 18),
        "tried": (2, 10, 50, 50, 50),
        "kept": (2, 8, 36, 36, 36),
    },
    "fd-table-1": {  # 10, `evaluate`: the bank, what a caption is charged of it, captions, metrics' pictures
        "bank": (12, 10_000, 10_000, 2000, 10_000),
        "charged": (12, 100, 100, 500, 10_000),
        "M": (None, 100, None, 500, None),
        "k": (None, 5, None, None, None),
        "steps": (1, 30, 45, 100, None),
        "copies": (None, 4, 8, 8, None),
        "judged_copies": (None, 6, 24, 24, None),
        "captions": (6, 20, 30, 50, 100),
        "samples": (48, 200, 2000, 2000, 5000),
    },
    "ot-01": {  # 11: patches per step, seeds
        "M": (None, 10_000, None, None, None),
        "steps": (2, 60, 150, 300, 1000),
        "patches": (6, 16, 32, 64, 64),
        "seeds": (2, 5, 5, 5, 20),
    },
    "ot-04": {  # 12: patches per step, seeds
        "M": (None, 10_000, None, None, None),
        "steps": (3, 50, 100, 300, 1000),
        "patches": (6, 16, 24, 64, 64),
        "seeds": (2, 5, 5, 5, 20),
    },
    "ot-05": {  # 13: patches per step, seeds
        "M": (None, 10_000, None, None, None),
        "steps": (2, 24, 50, 300, 1000),
        "patches": (8, 16, 24, 64, 64),
        "seeds": (2, 5, 5, 5, 5),
    },
    "new": {  # 14: seeds
        "M": (None, 50, None, None, None),
        "steps": (2, 12, 30, 150, None),
        "copies": (6, 10, 12, 16, None),
        "judged_copies": (None, 10, 24, 24, None),
        "lr": (None, 4e-2, None, None, None),
        "seeds": (3, 5, 6, 5, 10),
    },
    "live": {  # 15: starts of the measured tour, seconds of the contest
        "M": (None, 10_000, None, None, None),
        "steps": (6, 40, 60, 100, 400),
        "copies": (None, 6, 8, 8, None),
        "seeds": (2, 5, 5, 5, 5),
        "seconds": (2, 60, 60, 60, 60),
    },
    "own": {  # 16: steps of the climb with paper discs
        "M": (None, 80, 400, 500, None),
        "steps": (2, 20, 60, 150, None),
        "copies": (2, 4, 8, 8, None),
        "judged_copies": (2, 4, 24, 24, None),
        "far": (3, 40, 100, 300, 1000),
    },
}


def budget(name: str | None = None, models: Models | None = None, *, figure: str | None = None) -> Budget:
    """Return a budget by name, or a :class:`FigureBudget` with what a figure repeats.

    Args:
        name: one of BUDGETS; None reads FUSEDREAM_BUDGET, else takes :func:`default`'s.
        models: what will be run; it decides the default.
        figure: the main figure of a notebook, a key of FIGURES.

    Raises ValueError listing the known names.
    """
    chosen = "quick" if models is None else _suits(not models.world, lambda: models.device.type)
    name = name or os.environ.get("FUSEDREAM_BUDGET") or chosen
    if name not in BUDGETS:
        raise ValueError(f"No budget is called {name!r}; known are {', '.join(BUDGETS)}.")
    base = BUDGETS[name]
    if figure is None:
        return base
    if figure not in FIGURES:
        raise ValueError(f"No sizes are kept for {figure!r}; known are {', '.join(FIGURES)}.")
    column, sizes = list(BUDGETS).index(name), asdict(base)
    row = {key: values[column] for key, values in FIGURES[figure].items() if values[column] is not None}
    repeats = {key: row.pop(key) for key in list(row) if key not in sizes}
    return FigureBudget(repeats, **{**sizes, **row})


def default(model: str | None = None, device: str | None = None) -> str:
    """Return the budget's name where none is given: "colab" for real weights on CUDA, "quick" otherwise.

    The model's name and the device's are as :func:`fusedream_nb.load` reads them.
    """
    name = model or os.environ.get("FUSEDREAM_MODEL") or "stickers"
    real = name.partition("/")[0] != "stickers"
    return os.environ.get("FUSEDREAM_BUDGET") or _suits(real, lambda: resolve_device(device).type)


def _suits(real: bool, device: Callable[[], str]) -> str:
    return "colab" if real and device() == "cuda" else "quick"
