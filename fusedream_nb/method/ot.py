"""Costs between patches and prompts, and how they become one loss (OT prompts, Eq. 1, 5 and 7).

Both losses, the mean (Eq. 1) and entropic optimal transport (Eq. 5), are ⟨P, C⟩ with a plan P that says how
much of each patch goes to each prompt, and their gradient is the plan. Distances are functions of the angle
alone, so that their gradients are tangent to the sphere on which the encoder's vectors lie.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]

ITERATIONS = 1000
TOLERANCE = 1e-3  # of each prompt's weight: with 64 patches and two prompts, 3 hundredths of a patch
EVERY = 5  # iterations between two looks at the tolerance
FLAT = 1e-6  # a scale of costs below this is rounding


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """Return 1 - cos of the angles [..., n, m] of vectors u [..., n, d] and v [m, d], in [0, 2]."""
    return 1 - F.normalize(u, dim=-1) @ F.normalize(v, dim=-1).mT


def geodesic(u: Tensor, v: Tensor) -> Tensor:
    """Return the angles [..., n, m] of vectors u [..., n, d] and v [m, d], in [0, π].

    For unit vectors this is 2 arcsin(‖u - v‖ / 2), but finite in value and gradient at 0 and at π too.
    """
    a, b = F.normalize(u, dim=-1)[..., :, None, :], F.normalize(v, dim=-1)[..., None, :, :]
    return 2 * torch.atan2(torch.linalg.vector_norm(a - b, dim=-1), torch.linalg.vector_norm(a + b, dim=-1))


DISTANCES: dict[str, Distance] = {"cosine": cosine, "geodesic": geodesic}


def pull_back(distance: Distance, u: Tensor, v: Tensor, plan: Tensor) -> Tensor:
    """Return ∂L/∂u = Σⱼ Pᵢⱼ ∂D(uᵢ, vⱼ)/∂uᵢ [..., n, d] where ∂L/∂C is the plan [..., n, m] (Eq. 3 and 6)."""
    backwards = torch.func.vjp(lambda x: distance(x, v), u.detach())[1]
    return backwards(plan)[0]


def push_forward(distance: Distance, u: Tensor, v: Tensor, gradient: Tensor) -> Tensor:
    """Return wᵢ = dφ(∂L/∂uᵢ) [..., n, m], a gradient [..., n, d] seen on the cost plane (Eq. 7).

    φ(u) = [D(u, v₁), …, D(u, vₘ)]; wᵢⱼ is how fast the cost to prompt j grows along patch i's gradient.
    """
    with warnings.catch_warnings():  # torch's first jvp warns of torch's own torch.jit.script
        warnings.simplefilter("ignore", FutureWarning)
        return torch.func.jvp(lambda x: distance(x, v), (u.detach(),), (gradient,))[1]


def marginal_weights(weights: Sequence[float] | None, m: int) -> Tensor:
    """Return each prompt's marginal weight b [m]: weights over the sum of their sizes; None is 1/m each.

    A negative weight leads away from the prompt. Raises ValueError for another number of weights than of
    prompts, and for weights of 0 or that are not finite.
    """
    given = [1.0] * m if weights is None else [float(weight) for weight in weights]
    if len(given) != m:
        raise ValueError(f"{m} prompts require {m} weights, not {len(given)}.")
    if not all(math.isfinite(weight) and weight for weight in given):
        raise ValueError("A prompt's weight is a finite number other than 0; leave the prompt out instead.")
    total = sum(map(abs, given))
    return torch.tensor([weight / total for weight in given], dtype=torch.float64)


def mean_plan(costs: Tensor, b: Tensor) -> Tensor:
    """Return a bᵀ [..., n, m] with a = 1/n: every patch to every prompt, by the weights b [m] (Eq. 1)."""
    return (b.to(costs) / costs.shape[-2]).expand(costs.shape)


def mean_loss(costs: Tensor, b: Tensor) -> Tensor:
    """Return Σ bⱼ Cᵢⱼ / n [...] of costs [..., n, m]; Eq. 1 where all weights b [m] are 1/m."""
    return (mean_plan(costs, b) * costs).sum((-2, -1))


def cost_scale(costs: Tensor) -> Tensor:
    """Return the standard deviation [...] of that part of costs [..., n, m] which moves the plan.

    A number added to a row or a column changes no plan, so their means are taken out first. ε is given in
    this unit: it then means the same for any distance, any encoder, and prompts near or far.
    """
    return _centred(costs).square().mean((-2, -1)).sqrt().clamp(min=FLAT)


class Plan(NamedTuple):
    """A plan P [..., n, m], whether Sinkhorn's algorithm converged, and how many iterations it took."""

    plan: Tensor
    converged: bool
    iterations: int


@torch.no_grad()
def sinkhorn(
    costs: Tensor,
    epsilon: float | Tensor,
    b: Tensor,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
) -> Plan:
    """Return the plan of Eq. 5, with a = 1/n, by POT's Sinkhorn iteration in the log domain.

    Args:
        costs: C [..., n, m].
        epsilon: ε in the costs' unit, a number or one a picture [...].
        b: the prompts' marginal weights [m], above 0.
        tolerance: how far the columns of P may be from b, relative to b; its rows sum to 1/n.
        iterations: the most that are made.

    Raises ValueError unless ε and all weights are above 0.
    """
    eps = torch.as_tensor(epsilon, dtype=costs.dtype, device=costs.device)[..., None, None]
    if not bool((eps > 0).all()) or not bool((b > 0).all()):
        raise ValueError("Transport requires ε and every weight above 0; the mean takes negative weights.")
    log_n, log_b = math.log(costs.shape[-2]), b.to(costs).log()
    kernel = (log_b - _centred(costs) / eps).view(-1, *costs.shape[-2:])  # log K, one a picture
    a, columns = kernel.new_full(kernel.shape[:2], 1 / costs.shape[-2]), b.to(costs).expand(len(kernel), -1)
    done, converged = 0, False
    while done < iterations and not converged:
        rounds = min(EVERY if done else EVERY - 1, iterations - done)
        found = _pot()(kernel, a, columns, max_iter=rounds, tol=0.0)
        kernel = kernel + found["potentials"][1][:, None]  # POT begins at 0: the potentials go into K
        plan = kernel.log_softmax(-1) - log_n
        converged = bool(((log_b - plan.logsumexp(-2)).abs() <= tolerance).all())
        done += rounds
    return Plan((kernel.log_softmax(-1) - log_n).exp().view_as(costs), converged, done)


@cache
def _pot() -> Callable[..., dict[str, Any]]:
    """Return POT's batched iteration; importing it takes seconds, less without the backends it may have."""
    for backend in ("JAX", "TENSORFLOW", "CUPY"):
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{backend}", "1")
    from ot.batch import bregman_log_projection_batch  # type: ignore[import-untyped]

    return bregman_log_projection_batch


def transport_loss(
    costs: Tensor,
    epsilon: float | Tensor,
    b: Tensor,
    **limits: Any,  # noqa: ANN401
) -> tuple[Tensor, Plan]:
    """Return ⟨P, C⟩ + ε KL(P | a bᵀ) [...] (Eq. 5), and its Plan; arguments as in :func:`sinkhorn`.

    It is the paper's loss plus a constant, so that it tends to the mean loss as ε → ∞. The gradient with
    regard to the costs is P (Danskin), ε held. Warns where the iterations ran out.
    """
    found = sinkhorn(costs, epsilon, b, **limits)
    if not found.converged:
        early = f"Sinkhorn stopped after {found.iterations} iterations, before the prompts had their weights"
        warnings.warn(f"{early}; raise ε.", stacklevel=2)
    gain = torch.xlogy(found.plan, found.plan / mean_plan(costs, b)).sum((-2, -1))
    return (found.plan * costs).sum((-2, -1)) + epsilon * gain, found


def _centred(costs: Tensor) -> Tensor:
    costs = costs.detach()
    mean = costs.mean((-2, -1), keepdim=True)
    return costs - costs.mean(-1, keepdim=True) - costs.mean(-2, keepdim=True) + mean
