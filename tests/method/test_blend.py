"""Poisson blending: the boundary is the background's, the gradients inside the foreground's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusedream_nb.method.placement import PLACEMENTS, Box, Placement, paste, poisson, shrink
from fusedream_nb.models import Models

places = st.builds(Placement, st.floats(0.1, 0.95), st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 0.95))
SIDE = 24


def two(seed: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(1, 3, side, side, generator=rng).double() * 2 - 1 for _ in range(2))


def unknown(box: Box, side: int = SIDE) -> Tensor:
    """The box's pixels [height, width] that blending may change, by going through them one by one."""
    free = torch.zeros(box.height, box.width, dtype=torch.bool)
    for i in range(box.height):
        for j in range(box.width):
            up, left = box.top + i, box.left + j
            free[i, j] = all(
                (box.top <= a < box.top + box.height and box.left <= b < box.left + box.width)
                or not (0 <= a < side and 0 <= b < side)
                for a, b in ((up - 1, left), (up + 1, left), (up, left - 1), (up, left + 1))
            )
    return free


def divergence(image: Tensor) -> Tensor:
    """The sum of each pixel's differences from its neighbours in the picture [..., h, w]."""
    out = torch.zeros_like(image)
    for dim in (-1, -2):
        difference = image.diff(dim=dim)
        edge = torch.zeros_like(image.narrow(dim, 0, 1))
        out += torch.cat([edge, difference], dim) - torch.cat([difference, edge], dim)
    return out


@given(places, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_outside_and_on_the_rim_it_is_the_background_and_inside_the_foregrounds_laplacian(
    placement: Placement, seed: int
) -> None:
    foreground, background = two(seed)
    box = placement.box(SIDE, SIDE)
    blended = poisson(foreground, background, placement)
    free = unknown(box)
    kept = torch.ones(SIDE, SIDE, dtype=torch.bool)
    box.cut(kept)[free] = False
    assert torch.equal(blended[..., kept], background[..., kept])
    mine, wanted = divergence(box.cut(blended)), divergence(shrink(foreground, box))
    torch.testing.assert_close(mine[..., free], wanted[..., free], atol=1e-8, rtol=0)


@pytest.mark.parametrize("placement", [*PLACEMENTS, Placement(0.4, 0.3, 0.0, height=0.8)], ids=str)
def test_where_the_two_differ_by_a_constant_the_gradients_are_the_foregrounds_exactly(
    placement: Placement,
) -> None:
    foreground, background = two(1)
    box = placement.box(SIDE, SIDE)
    small = shrink(foreground, box)
    box.cut(background).copy_(small + 0.25)
    box.cut(background)[..., unknown(box)] = 9.0  # what is under the foreground must not matter
    blended = poisson(foreground, background, placement)
    torch.testing.assert_close(box.cut(blended), small + 0.25, atol=1e-9, rtol=0)


@given(places, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_the_correction_stays_between_its_values_on_the_rim(placement: Placement, seed: int) -> None:
    """f - g is harmonic, so it is largest and smallest where the box meets the background."""
    foreground, background = two(seed)
    box = placement.box(SIDE, SIDE)
    free = unknown(box)
    if not free.any():
        assert torch.equal(poisson(foreground, background, placement), background)
        return
    correction = box.cut(poisson(foreground, background, placement)) - shrink(foreground, box)
    rim = correction[..., ~free]
    assert (correction.amax((-1, -2)) <= rim.amax(-1) + 1e-9).all()
    assert (correction.amin((-1, -2)) >= rim.amin(-1) - 1e-9).all()


@pytest.mark.parametrize("placement", [Placement(0.5), Placement(0.5, 0, 1), Placement(0.6, 1, 0.3)], ids=str)
def test_it_is_the_least_squares_fit_of_the_gradients(placement: Placement) -> None:
    """A dense solver over the box's pairs of neighbours, written out pair by pair."""
    side = 12
    foreground, background = two(3, side)
    box = placement.box(side, side)
    g, f = (part[0, 0].numpy() for part in (shrink(foreground, box), box.cut(background)))
    free = unknown(box, side).numpy()
    number = np.cumsum(free.ravel()).reshape(free.shape) - 1
    rows, values = [], []
    for i, j in np.ndindex(free.shape):
        for a, b in ((i + 1, j), (i, j + 1)):
            if a < box.height and b < box.width and (free[i, j] or free[a, b]):
                row, value = np.zeros(free.sum()), g[a, b] - g[i, j]
                for (p, q), sign in (((a, b), 1.0), ((i, j), -1.0)):
                    if free[p, q]:
                        row[number[p, q]] += sign
                    else:
                        value -= sign * f[p, q]
                rows.append(row)
                values.append(value)
    solved = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    mine = box.cut(poisson(foreground, background, placement))[0, 0].numpy()
    np.testing.assert_allclose(mine[free], solved, atol=1e-9)


def test_a_picture_in_itself_stays_as_it_is() -> None:
    """Nothing shifts: a background's own crop, put back where it was, changes no pixel."""
    _, background = two(2)
    for placement in PLACEMENTS:
        own = placement.box(SIDE, SIDE).cut(background).clone()
        torch.testing.assert_close(poisson(own, background, placement), background, atol=1e-9, rtol=0)


def test_a_box_without_a_rim_is_the_foreground_and_one_without_an_inside_the_background() -> None:
    foreground, background = two(4, 10)
    assert torch.equal(poisson(foreground, background, Placement(0.99)), foreground)
    assert torch.equal(poisson(foreground, background, Placement(0.2)), background)


def test_batches_and_channels_are_by_themselves() -> None:
    (a, b), (c, d) = two(5), two(6)
    placement = Placement(0.6, 0.0, 0.5)
    together = poisson(torch.cat([a, c]), torch.cat([b, d]), placement)
    torch.testing.assert_close(together, torch.cat([poisson(a, b, placement), poisson(c, d, placement)]))
    turned = poisson(a.flip(1), b.flip(1), placement)
    torch.testing.assert_close(turned, poisson(a, b, placement).flip(1))


def test_mirrored_pictures_blend_to_the_mirrored_picture() -> None:
    foreground, background = two(7)
    left, right = Placement(0.5, 0.0, 0.5), Placement(0.5, 1.0, 0.5)
    mirrored = poisson(foreground.flip(-1), background.flip(-1), right).flip(-1)
    torch.testing.assert_close(mirrored, poisson(foreground, background, left), atol=1e-9, rtol=0)


def test_a_real_pair_loses_its_seam(models: Models, pictures: Tensor) -> None:
    """The jumps across the box's edge shrink to what the background has there by itself."""
    foreground, background, placement = pictures[:1], pictures[1:2], Placement(0.5)
    before = background.clone()
    pasted, blended = (way(foreground, background, placement) for way in (paste, poisson))

    def seam(image: Tensor) -> float:
        rows = image[..., 15:17, 16:48].diff(dim=-2).abs().mean()
        return float(rows + image[..., 16:48, 15:17].diff(dim=-1).abs().mean())

    assert blended.dtype == torch.float32
    assert seam(blended) == pytest.approx(seam(background), abs=1e-6)
    assert seam(blended) < 0.5 * seam(pasted)
    assert torch.equal(background, before)
