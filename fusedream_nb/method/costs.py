"""Costs D(uᵢ, vⱼ) between patches and prompts, and what a gradient does to them (OT prompts, Eq. 7).

Each distance is a function of the angle alone, so its gradient is tangent to the sphere on which the
encoder's vectors lie.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]
DistanceName = Literal["cosine", "geodesic", "squared"]


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """Return 1 - cos of the angles [..., n, m] of vectors u [..., n, d] and v [m, d], in [0, 2]."""
    return 1 - F.normalize(u, dim=-1) @ F.normalize(v, dim=-1).mT


def geodesic(u: Tensor, v: Tensor) -> Tensor:
    """Return the angles [..., n, m] of vectors u [..., n, d] and v [m, d], in [0, π].

    For unit vectors this is 2 arcsin(‖u - v‖ / 2), but finite in value and gradient at 0 and at π too.
    """
    a, b = F.normalize(u, dim=-1)[..., :, None, :], F.normalize(v, dim=-1)[..., None, :, :]
    return 2 * torch.atan2(torch.linalg.vector_norm(a - b, dim=-1), torch.linalg.vector_norm(a + b, dim=-1))


def squared(u: Tensor, v: Tensor) -> Tensor:
    """Return half the squared angles [..., n, m], in [0, π²/2]: VQGAN+CLIP's own distance."""
    return geodesic(u, v).square() / 2


DISTANCES: dict[str, Distance] = {"cosine": cosine, "geodesic": geodesic, "squared": squared}


def find_distance(distance: DistanceName | Distance) -> Distance:
    """Return a distance by name, or the function itself: u [..., n, d], v [m, d] → costs [..., n, m].

    Raises ValueError listing the known ones.
    """
    if callable(distance):
        return distance
    if distance not in DISTANCES:
        raise ValueError(f"No distance is called {distance!r}; known are {', '.join(DISTANCES)}.")
    return DISTANCES[distance]


def pull_back(distance: Distance, u: Tensor, v: Tensor, plan: Tensor) -> Tensor:
    """Return ∂L/∂u = Σⱼ Pᵢⱼ ∂D(uᵢ, vⱼ)/∂uᵢ [..., n, d] where ∂L/∂C is the plan [..., n, m] (Eq. 3 and 6)."""
    backwards = torch.func.vjp(lambda x: distance(x, v), u.detach())[1]
    return backwards(plan)[0]


def push_forward(distance: Distance, u: Tensor, v: Tensor, gradient: Tensor) -> Tensor:
    """Return wᵢ = dφ(∂L/∂uᵢ) [..., n, m], a gradient [..., n, d] seen on the cost plane (Eq. 7).

    φ(u) = [D(u, v₁), …, D(u, vₘ)]. Its element j says how fast the cost to prompt j grows along the
    gradient of patch i; a descent moves the patch along -w.
    """
    with warnings.catch_warnings():  # torch's first jvp warns of torch's own torch.jit.script
        warnings.simplefilter("ignore", FutureWarning)
        return torch.func.jvp(lambda x: distance(x, v), (u.detach(),), (gradient,))[1]
