"""How costs become one loss: the mean (OT prompts, Eq. 1), or entropic optimal transport (Eq. 5).

Both are ⟨P, C⟩ with some plan P that says how much of each patch goes to each prompt, and both have the
plan as their gradient. The mean's is the same for all patches; transport chooses its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ITERATIONS = 1000
TOLERANCE = 1e-3  # of each prompt's share: with 64 patches and two prompts, 3 hundredths of a patch
FLAT = 1e-6  # a spread of costs below this is rounding


def shares(weights: Sequence[float] | None, m: int) -> Tensor:
    """Return each prompt's share b [m], the weights over the sum of their sizes; None is 1/m each.

    A negative weight gives a negative share: away from the prompt. Raises ValueError for another number of
    weights than of prompts, and for weights of 0 or that are not finite.
    """
    given = [1.0] * m if weights is None else [float(weight) for weight in weights]
    if len(given) != m:
        raise ValueError(f"{m} prompts want {m} weights, not {len(given)}.")
    if not all(math.isfinite(weight) and weight for weight in given):
        raise ValueError("A prompt's weight is a finite number other than 0; leave the prompt out instead.")
    total = sum(abs(weight) for weight in given)
    return torch.tensor([weight / total for weight in given], dtype=torch.float64)


def mean_plan(costs: Tensor, b: Tensor) -> Tensor:
    """Return a bᵀ [..., n, m] with a = 1/n: every patch to every prompt, by the shares b [m] (Eq. 1)."""
    return (b.to(costs) / costs.shape[-2]).expand(costs.shape)


def mean_loss(costs: Tensor, b: Tensor) -> Tensor:
    """Return Σ bⱼ Cᵢⱼ / n [...] of costs [..., n, m]; Eq. 1 where all shares b [m] are 1/m."""
    return (mean_plan(costs, b) * costs).sum((-2, -1))


def spread(costs: Tensor) -> Tensor:
    """Return the standard deviation [...] of that part of costs [..., n, m] which moves the plan.

    A number added to a row or a column changes no plan, so their means are taken out first. ε is given in
    this unit: it then means the same for any distance, any encoder, and prompts near or far.
    """
    return _centred(costs).square().mean((-2, -1)).sqrt().clamp(min=FLAT)


@torch.no_grad()
def transport_plan(
    costs: Tensor,
    epsilon: float | Tensor,
    b: Tensor,
    *,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
) -> Tensor:
    """Return the plan P [..., n, m] of Eq. 5, with a = 1/n, by Sinkhorn's algorithm in the log domain.

    ``epsilon`` is a number in the costs' unit or one a picture [...], ``b`` [m] are the prompts' shares. The
    rows of P sum to 1/n; its columns to b within ``tolerance`` of b, unless ``iterations`` run out.
    Raises ValueError unless ε and all shares are above 0.
    """
    eps = torch.as_tensor(epsilon, dtype=costs.dtype, device=costs.device)[..., None, None]
    if not bool((eps > 0).all()) or not bool((b > 0).all()):
        raise ValueError("Transport wants ε and every weight above 0; the mean loss takes negative weights.")
    log_n, log_b = math.log(costs.shape[-2]), b.to(costs).log()
    potential = log_b - _centred(costs) / eps
    for iteration in range(iterations):
        plan = potential.log_softmax(-1) - log_n  # the rows hold
        lack = log_b - plan.logsumexp(-2, keepdim=True)  # how far the columns do not
        if iteration % 5 == 4 and bool((lack.abs() <= tolerance).all()):
            break
        potential = potential + lack
    return plan.exp()


def transport_loss(
    costs: Tensor,
    epsilon: float | Tensor,
    b: Tensor,
    *,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
) -> tuple[Tensor, Tensor]:
    """Return ⟨P, C⟩ + ε KL(P | a bᵀ) [...] (Eq. 5), and its plan P [..., n, m].

    The paper's -ε H(P) differs from this by a constant, so the plan is the same; but this one tends to the
    mean loss as ε → ∞. The gradient with regard to the costs is P (Danskin), ε held.
    """
    plan = transport_plan(costs, epsilon, b, tolerance=tolerance, iterations=iterations)
    gain = torch.xlogy(plan, plan / mean_plan(costs, b)).sum((-2, -1))
    return (plan * costs).sum((-2, -1)) + epsilon * gain, plan


def reached(costs: Tensor, b: Tensor, stop: float | Tensor) -> Tensor:
    """Return where [..., n, m] a patch is near enough to a prompt to be left alone.

    That is where D sign(bⱼ) < ``stop`` (one for all or one a prompt [m]), as in VQGAN+CLIP: a prompt of
    negative share stops pushing at distances beyond -``stop``.
    """
    return costs.detach() * b.sign().to(costs) < torch.as_tensor(stop).to(costs)


def _centred(costs: Tensor) -> Tensor:
    costs = costs.detach()
    mean = costs.mean((-2, -1), keepdim=True)
    return costs - costs.mean(-1, keepdim=True) - costs.mean(-2, keepdim=True) + mean
