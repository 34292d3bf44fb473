"""Poisson blending (Pérez, Gangnet, Blake, 2003), in floating point and solved exactly."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from .placement import Box, Placement, shrink


@torch.no_grad()
def poisson(foreground: Tensor, background: Tensor, placement: Placement) -> Tensor:
    """Blend foregrounds into backgrounds: the foreground's gradients, the background's boundary.

    Foregrounds [n, 3, h', w'] of any size, backgrounds [n, 3, h, w]. The result f [n, 3, h, w] minimises
    Σ ((f_p - f_q) - (g_p - g_q))² over neighbours p, q in the box, g the foreground shrunk to it
    (FuseDream, §3.3, last paragraph). Outside the box and on its rim f is the background; where the
    box's side is the picture's own border there is no rim, and f is free. Values may leave [-1, 1].
    """
    box = placement.box(*background.shape[-2:])
    free = _free(box, *background.shape[-2:])
    if free.all():  # no rim at all: any constant fits, and the foreground's own is at hand
        return shrink(foreground, box)
    blended = background.clone()
    if free.any():
        inside = box.cut(blended)
        solved = _solve(shrink(foreground, box), inside, free)
        inside.copy_(torch.where(torch.from_numpy(free).to(inside.device), solved, inside))
    return blended


def _free(box: Box, height: int, width: int) -> np.ndarray:
    """Return which of the box's pixels [height, width] are unknown: all but the rim."""
    free = np.ones((box.height, box.width), bool)
    free[0] &= box.top == 0
    free[-1] &= box.top + box.height == height
    free[:, 0] &= box.left == 0
    free[:, -1] &= box.left + box.width == width
    return free


def _solve(foreground: Tensor, background: Tensor, free: np.ndarray) -> Tensor:
    """Return the box's pixels [n, 3, h, w]: f = g + u, u harmonic, f the background on the rim."""
    laplacian, unknown = _laplacian(*free.shape), free.ravel()
    own = foreground.cpu().double()
    offset = (background.cpu().double() - own).flatten(2).flatten(0, 1).numpy().T  # [pixels, n * 3]
    rows = laplacian[unknown]
    offset[unknown] = splu(rows[:, unknown].tocsc()).solve(-(rows[:, ~unknown] @ offset[~unknown]))
    harmonic = torch.from_numpy(np.ascontiguousarray(offset.T)).view(own.shape)
    return (own + harmonic).to(background)


def _laplacian(height: int, width: int) -> sparse.csr_matrix:
    """Return the Laplacian [pixels, pixels] of a grid of pixels that ends at its edges."""

    def along(length: int) -> sparse.csr_matrix:
        difference = sparse.diags([-1.0, 1.0], [0, 1], shape=(length - 1, length))
        return (difference.T @ difference).tocsr()

    down, across = sparse.identity(height), sparse.identity(width)
    return (sparse.kron(along(height), across) + sparse.kron(down, along(width))).tocsr()
