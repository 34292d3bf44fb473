"""How much work a run does: numbers only."""

from __future__ import annotations

import os
from dataclasses import dataclass


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
        """Pictures that the generator draws in a run: M for the start, then one a step and the first."""
        return self.M + self.steps + 1

    @property
    def equal_steps(self) -> int:
        """Steps, without a search for the start, that cost the generator as much as a whole run.

        Going backwards costs about two times going forwards, so three samples of the start are a step.
        """
        return self.steps + self.M // 3


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("quick", M=400, k=5, steps=100, copies=12, lr=2e-2, start_copies=4, judged_copies=24),
        Budget("full", M=10_000, k=5, steps=1000, copies=24, lr=5e-3, start_copies=4, judged_copies=50),
        Budget("paper", M=10_000, k=5, steps=1000, copies=50, lr=5e-3, start_copies=10, judged_copies=100),
    )
}


def budget(name: str | None = None) -> Budget:
    """Return a budget by name; None reads FUSEDREAM_BUDGET, else takes quick.

    Raises ValueError listing the known ones.
    """
    name = name or os.environ.get("FUSEDREAM_BUDGET") or "quick"
    if name not in BUDGETS:
        raise ValueError(f"No budget is called {name!r}; known are {', '.join(BUDGETS)}.")
    return BUDGETS[name]
