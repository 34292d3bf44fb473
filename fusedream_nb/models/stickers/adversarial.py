"""What a discriminator does for a generator: a hinge step of its own, a push that is balanced."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .train_encoders import perturb


def opposed(
    judge: Callable[[Tensor], Tensor],
    steps: torch.optim.Optimizer,
    real: Tensor,
    fake: Tensor,
    rng: torch.Generator,
) -> tuple[Tensor, float]:
    """Take a step of the discriminator; return its push [n, 3, h, w] at the fakes, and its hinge loss."""
    true, false = judge(perturb(torch.cat([real, fake.detach()]), rng)).chunk(2)
    hinge = F.relu(1 - true).mean() + F.relu(1 + false).mean()
    steps.zero_grad(set_to_none=True)
    hinge.backward()
    steps.step()
    return torch.autograd.grad(-judge(perturb(fake, rng)).mean(), fake)[0], hinge.item()


def balance(pull: Tensor, push: Tensor) -> Tensor:
    """Return the weight at which a push is as strong as a pull, both at the pictures (VQGAN, Eq. 7)."""
    return (pull.norm() / (push.norm() + 1e-8)).clamp(max=1e4)
