"""How to step: by Adam, and which way where two goals pull: dynamic barrier (FuseDream, Eq. 6) and others.

ℓ is to fall and s to rise. Each rule takes the gradients ∇ℓ and ∇s [n, d] of n runs over the same d
variables, and returns the direction v [n, d] and its coefficient λ [n]; the step is x ← x - εv.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Gradient = Sequence[Tensor]  # one a parameter
State = dict[str, Any]  # tensors, numbers, texts, and lists and dictionaries of them

BETAS, EPS = (0.9, 0.999), 1e-8  # Adam's
FLOOR = 1e-20  # of ‖∇s‖²: far below what a climb meets, far above where float32 ends


def bilevel(loss: Tensor, score: Tensor, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    """Lower ℓ among the maxima of s: v = ∇ℓ - λ∇s, λ = max((β‖∇s‖² + ⟨∇ℓ, ∇s⟩) / ‖∇s‖², 0) (Eq. 6).

    v is the point nearest to ∇ℓ with ⟨v, ∇s⟩ ≤ -β‖∇s‖²: a small plain step lets s rise by ε β‖∇s‖² at
    least. λ = 0 exactly where ∇ℓ obeys already. Fed to Adam, which scales each coordinate by itself,
    the promise is lost. The denominator is at least :data:`FLOOR`; v = ∇ℓ where ∇s = 0.
    """
    square = score.square().sum(1)
    wanted = beta * square + (loss * score).sum(1)
    lam = (wanted / square.clamp(min=FLOOR)).clamp(min=0)
    return loss - lam[:, None] * score, lam


@dataclass(frozen=True)
class BilevelRule:
    """:func:`bilevel` with its β in place (Eq. 6); ValueError for β < 0."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"β must be 0 or more, and finite, not {self.beta}.")

    def __call__(self, loss: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """Return v [n, d] and λ [n]."""
        return bilevel(loss, score, self.beta)


@dataclass(frozen=True)
class InverseRule(BilevelRule):
    """Raise s among the minima of ℓ, the roles of Eq. 6 changed: v = λ∇ℓ - ∇s (Eq. 8).

    λ = max((β‖∇ℓ‖² + ⟨∇s, ∇ℓ⟩) / ‖∇ℓ‖², 0), so that ⟨v, ∇ℓ⟩ ≥ β‖∇ℓ‖².
    """

    def __call__(self, loss: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """Return v [n, d] and λ [n]."""
        return bilevel(-score, -loss, self.beta)


@dataclass(frozen=True)
class LinearRule:
    """Lower (1 - λ)ℓ - λs for a fixed λ: v = (1 - λ)∇ℓ - λ∇s (Eq. 7); ValueError for λ outside [0, 1]."""

    lam: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.lam <= 1:
            raise ValueError(f"λ of the linear combination must lie in [0, 1], not at {self.lam}.")

    def __call__(self, loss: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """Return v [n, d] and λ [n]."""
        return (1 - self.lam) * loss - self.lam * score, loss.new_full((len(loss),), self.lam)


@dataclass(frozen=True)
class ScoreRule:
    """Raise s and leave ℓ to itself: v = -∇s, Eq. 7 with λ = 1."""

    def __call__(self, loss: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """Return v [n, d] and λ [n]."""
        return LinearRule(1.0)(loss, score)


RULES: dict[str, type[BilevelRule | LinearRule | ScoreRule]] = {
    "bilevel": BilevelRule,
    "linear": LinearRule,
    "inverse": InverseRule,
    "augclip": ScoreRule,
}


def rule(name: str = "bilevel", *, beta: float = 1.0, lam: float = 0.5) -> Rule:
    """Return a rule by name, with β of Eqs. 6 and 8, or λ of Eq. 7; ValueError for no such name or number."""
    if name not in RULES:
        raise ValueError(f"No rule is called {name!r}; known are {', '.join(RULES)}.")
    numbers = {"beta": beta, "lam": lam}
    return RULES[name](**{field: numbers[field] for field in RULES[name].__dataclass_fields__})


def two_gradients(loss: Tensor, score: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return ∇ℓ and ∇s [n, d] of values [n], each over its own run's variables.

    ``parameters`` are tensors [n, …]; the graph is used up. Two passes back: one batched product is no
    faster on a CPU (benchmarks/compose_gradients.py).
    """
    found = []
    for value, again in ((loss, True), (score, False)):
        parts = torch.autograd.grad(value.sum(), parameters, retain_graph=again)
        found.append(torch.cat([part.flatten(1) for part in parts], 1))
    return found[0], found[1]


class Adam:
    """Adam (Kingma and Ba, 2015), step for step that of torch, whose own imports torch's compiler: seconds.

    θ ← θ - lr · m̂ / (√v̂ + ε), with running means m of the gradient and v of its square.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters, self.steps = parameters, 0
        self.means, self.squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    @torch.no_grad()
    def step(self, gradient: Gradient, lr: float) -> None:
        """Move each parameter against its gradient."""
        self.steps += 1
        first, second = (1 - beta**self.steps for beta in BETAS)
        for parameter, g, m, v in zip(self.parameters, gradient, self.means, self.squares, strict=True):
            m.lerp_(g, 1 - BETAS[0])
            v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
            parameter.addcdiv_(m, (v.sqrt() / math.sqrt(second)).add_(EPS), value=-lr / first)

    def state_dict(self) -> State:
        """Return copies of the running means, and the number of steps."""
        return deepcopy({"steps": self.steps, "means": self.means, "squares": self.squares})

    def load_state_dict(self, state: State) -> None:
        """Go to a state."""
        vars(self).update(deepcopy(state))
