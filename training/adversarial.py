"""What a discriminator does for a generator: a hinge step of its own, a push that is balanced."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .data import perturb


def opposed(
    judge: Callable[[Tensor], Tensor],
    steps: torch.optim.Optimizer,
    real: Tensor,
    fake: Tensor,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Take a step of the discriminator; return its push [n, 3, h, w] at the fakes, and its hinge loss."""
    with torch.autocast(fake.device.type, torch.bfloat16, enabled=fake.is_cuda):
        true, false = judge(perturb(torch.cat([real, fake.detach()]), rng)).float().chunk(2)
        hinge = F.relu(1 - true).mean() + F.relu(1 + false).mean()
    steps.zero_grad(set_to_none=True)
    hinge.backward()
    steps.step()
    leaf = fake.detach().requires_grad_()
    with torch.autocast(fake.device.type, torch.bfloat16, enabled=fake.is_cuda):
        value = -judge(perturb(leaf, rng)).float().mean()
    return torch.autograd.grad(value, leaf)[0], hinge.detach()


def balance(pull: Tensor, push: Tensor) -> Tensor:
    """Return the weight at which a push is as strong as a pull, both at the pictures (VQGAN, Eq. 7)."""
    return (pull.norm() / (push.norm() + 1e-8)).clamp(max=1e4)
