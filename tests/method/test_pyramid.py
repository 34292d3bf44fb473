"""A pyramid of grids: it begins at its start, moves the large first, reaches any grid, and stays valid."""

from __future__ import annotations

import pytest
import torch

from fusedream_nb.method.latents import SCALES, Pyramid
from fusedream_nb.models.generators import Latent


@pytest.fixture
def start(rng: torch.Generator) -> Latent:
    return Latent(torch.randn(2, 3, 8, 12, generator=rng))


class Box:
    """A generator that knows only its valid set."""

    def project(self, latent: Latent) -> Latent:
        return latent.map(lambda t: t.clamp(-1, 1))


def test_it_begins_at_its_start_and_keeps_the_caller_s_own(start: Latent) -> None:
    kept = start.z.clone()
    pyramid = Pyramid(start)
    torch.testing.assert_close(pyramid.combine().z, kept, rtol=0, atol=0)
    for level in pyramid.parameters():
        level.add_(1.0)
    torch.testing.assert_close(pyramid.combine().z, kept + sum(SCALES))
    torch.testing.assert_close(start.z, kept, rtol=0, atol=0)


def test_a_step_of_adam_moves_the_large_more_than_the_fine(start: Latent, rng: torch.Generator) -> None:
    """Against a target with a coarse and a fine part, the first step closes more of the coarse one."""
    coarse = torch.ones(1, 1, 8, 12)
    fine = (torch.arange(8)[:, None] + torch.arange(12)) % 2 * 2.0 - 1.0
    pyramid = Pyramid(Latent(torch.zeros(1, 1, 8, 12)))
    adam = torch.optim.Adam([p.requires_grad_() for p in pyramid.parameters()], lr=0.01)
    (pyramid.combine().z - coarse - fine).square().mean().backward()
    adam.step()
    moved = pyramid.combine().z.detach()
    assert (moved * coarse).mean() > 3 * (moved * fine).mean() > 0


def test_the_valid_set_is_kept_exactly(start: Latent) -> None:
    pyramid = Pyramid(Latent(start.z * 3))
    pyramid.project_(Box())
    torch.testing.assert_close(pyramid.combine().z, (start.z * 3).clamp(-1, 1), atol=1e-5, rtol=0)


def test_what_is_no_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[n, dim, h, w\]"):
        Pyramid(Latent(torch.zeros(2, 3)))
