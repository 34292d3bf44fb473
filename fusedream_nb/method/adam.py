"""Adam (Kingma and Ba, 2015), step for step that of torch, whose own imports torch's compiler: seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8


class Adam:
    """θ ← θ - lr · m̂ / (√v̂ + ε), with running means m of the gradient and v of its square.

    A parameter without a gradient stays. Its state dict is laid out as that of ``torch.optim.Adam``.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        self.parameters, self.lr = list(parameters), lr
        self.state: dict[int, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Move each parameter against its gradient."""
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if number not in self.state:
                zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[number] = {"step": torch.tensor(0.0), **zeros}
            step, mean, square = self.state[number].values()
            step += 1
            mean.lerp_(parameter.grad, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(parameter.grad, parameter.grad, value=1 - BETAS[1])
            first, second = (1 - beta ** step.item() for beta in BETAS)
            parameter.addcdiv_(mean, (square.sqrt() / math.sqrt(second)).add_(EPS), value=-self.lr / first)

    def state_dict(self) -> dict[str, Any]:
        """Return the running means of every parameter, as they are."""
        return {"state": self.state, "param_groups": [{"lr": self.lr}]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the running means of a state dict, this class's or torch's."""
        names = ("step", "exp_avg", "exp_avg_sq")
        self.state = {number: {name: row[name] for name in names} for number, row in state["state"].items()}
