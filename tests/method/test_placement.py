"""Boxes, paste and crop: whole pixels at any resolution, gradients, errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedream_nb.method.placement import PLACEMENTS, Box, Placement, crop, named, paste, shrink

shares = st.floats(0, 1)
sizes = st.floats(0, 1, exclude_min=True, exclude_max=True)


def test_the_paper_has_18_placements() -> None:
    assert len(PLACEMENTS) == len(set(PLACEMENTS)) == 18
    assert {place.alpha for place in PLACEMENTS} == {0.65, 0.5}
    for alpha in (0.65, 0.5):
        places = {(place.x, place.y) for place in PLACEMENTS if place.alpha == alpha}
        assert places == {(x, y) for x in (0, 0.5, 1) for y in (0, 0.5, 1)}


@pytest.mark.parametrize(
    ("alpha", "x", "y", "side", "box"),
    [
        (0.65, "left", "top", 64, (0, 0, 42, 42)),
        (0.65, "center", "center", 64, (11, 11, 42, 42)),
        (0.65, "right", "bottom", 64, (22, 22, 42, 42)),
        (0.65, "right", "top", 128, (0, 45, 83, 83)),
        (0.65, "center", "center", 128, (23, 23, 83, 83)),
        (0.65, "left", "center", 256, (45, 0, 166, 166)),
        (0.65, "center", "bottom", 512, (179, 90, 333, 333)),
        (0.5, "center", "top", 64, (0, 16, 32, 32)),
        (0.5, "left", "bottom", 128, (64, 0, 64, 64)),
        (0.5, "center", "center", 256, (64, 64, 128, 128)),
        (0.5, "right", "center", 512, (128, 256, 256, 256)),
    ],
)
def test_boxes_are_these_pixels(
    alpha: float, x: str, y: str, side: int, box: tuple[int, int, int, int]
) -> None:
    assert Placement.at(alpha, x, y).box(side, side) == box


@given(sizes, st.none() | sizes, shares, shares, st.integers(1, 600), st.integers(1, 600))
def test_a_box_lies_in_the_picture_and_is_within_half_a_pixel_of_its_shares(
    alpha: float, tall: float | None, x: float, y: float, height: int, width: int
) -> None:
    box = Placement(alpha, x, y, tall).box(height, width)
    assert 0 <= box.top <= box.top + box.height <= height
    assert 0 <= box.left <= box.left + box.width <= width
    assert abs(box.height - max(1, (tall or alpha) * height)) <= 0.5 + 1e-9
    assert abs(box.width - max(1, alpha * width)) <= 0.5 + 1e-9
    assert abs(box.left - x * (width - box.width)) <= 0.5 + 1e-9
    assert (box.left == 0) or x > 0
    assert (box.left + box.width == width) or x < 1


@pytest.mark.parametrize("side", [64, 128, 256])
@pytest.mark.parametrize("placement", [*PLACEMENTS, Placement(0.3, 0.2, 0.9, height=0.7)], ids=str)
def test_paste_writes_the_box_and_nothing_else(placement: Placement, side: int) -> None:
    box = placement.box(side, side)
    fused = paste(torch.ones(1, 3, 64, 64), torch.zeros(1, 3, side, side), placement)
    rows, columns = fused[0, 0].nonzero().unbind(1)
    assert (int(rows.min()), int(columns.min())) == (box.top, box.left)
    assert (int(rows.max()), int(columns.max())) == (box.top + box.height - 1, box.left + box.width - 1)
    torch.testing.assert_close(fused.sum((2, 3)), torch.full((1, 3), float(box.height * box.width)))


def test_what_was_pasted_can_be_cropped_again(rng: torch.Generator) -> None:
    foreground, background = (torch.rand(4, 3, 64, 64, generator=rng) for _ in range(2))
    places = PLACEMENTS[5:9]
    fused = paste(foreground, background, places)
    assert torch.equal(crop(fused, places), shrink(foreground, Box(0, 0, 42, 42)))
    assert torch.equal(paste(crop(background, places), background, places), background)


def test_a_placement_each_is_one_at_a_time(rng: torch.Generator) -> None:
    foreground, background = (torch.rand(18, 3, 64, 64, generator=rng) for _ in range(2))
    together = paste(foreground, background, PLACEMENTS)
    alone = [paste(f[None], b[None], p) for f, b, p in zip(foreground, background, PLACEMENTS, strict=True)]
    assert torch.equal(together, torch.cat(alone))


def test_neither_picture_is_changed(rng: torch.Generator) -> None:
    foreground, background = (torch.rand(1, 3, 64, 64, generator=rng) for _ in range(2))
    before = background.clone()
    paste(foreground, background, PLACEMENTS[0]).zero_()
    assert torch.equal(background, before)


def test_shrinking_is_antialiased() -> None:
    """A checkerboard of single pixels turns grey; without antialiasing it would be stripes or flat."""
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1).expand(1, 3, 64, 64)
    inner = shrink(board, Box(0, 0, 42, 42))[..., 2:-2, 2:-2]
    plain = F.interpolate(board, (42, 42), mode="bilinear")[..., 2:-2, 2:-2]
    assert inner.abs().mean() < 0.3 * plain.abs().mean()
    assert shrink(torch.ones(1, 3, 64, 64), Box(0, 0, 30, 20)).sub(1).abs().max() < 1e-6


@given(sizes, shares, shares, st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_the_gradient_reaches_what_is_seen(alpha: float, x: float, y: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    foreground = torch.rand(1, 3, 12, 12, generator=rng).double().requires_grad_()
    background = torch.rand(1, 3, 20, 16, generator=rng).double().requires_grad_()
    placement = Placement(alpha, x, y)
    fused = paste(foreground, background, placement)
    upstream = torch.rand(fused.shape, generator=rng).double()
    of_fore, of_back = torch.autograd.grad(fused, [foreground, background], upstream)
    hidden = torch.zeros_like(of_back)
    placement.box(20, 16).cut(hidden).fill_(1)
    torch.testing.assert_close(of_back, upstream * (1 - hidden))
    # The weights of a resizing sum to 1 for each pixel, so the whole gradient arrives.
    torch.testing.assert_close(of_fore.sum(), (upstream * hidden).sum())


def test_placements_are_named_in_a_text() -> None:
    assert named("all") == PLACEMENTS == named("9@0.65, 9@0.5") == named("all,Left-Top@0.5")
    assert named("9@0.65") == PLACEMENTS[:9]
    assert named("right-center@.3") == (Placement.at(0.3, "right", "center"),)
    assert named("left-top@0.4x0.6") == (Placement(0.4, 0.0, 0.0, 0.6),)


@pytest.mark.parametrize(
    "text", ["", "all@0.5", "9", "9@", "9@2", "left@0.5", "top-left@0.5", "all,,9@0.5", "18"]
)
def test_a_text_that_names_no_placement_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="No placement is called"):
        named(text)


def test_placements_have_names() -> None:
    assert str(Placement.at(0.65, "left", "top")) == "0.65 top left"
    assert str(Placement(0.5)) == "0.5 center center"
    assert str(Placement(0.3, 0.2, 1.0, height=0.4)) == "0.3 × 0.4 bottom 0.2"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0.0,), "alpha must lie between 0 and 1, not at 0.0"),
        ((1.0,), "alpha must lie between 0 and 1, not at 1.0"),
        ((float("nan"),), "alpha must lie between 0 and 1, not at nan"),
        ((0.5, -0.1), r"x must lie in \[0, 1\], not at -0.1"),
        ((0.5, 0.5, 1.1), r"y must lie in \[0, 1\], not at 1.1"),
        ((0.5, 0.5, 0.5, 1.5), "height must lie between 0 and 1, not at 1.5"),
    ],
)
def test_shares_out_of_range_are_refused(arguments: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Placement(*arguments)


def test_numbers_and_sizes_that_do_not_fit_are_refused() -> None:
    image = torch.zeros(2, 3, 64, 64)
    with pytest.raises(ValueError, match="2 backgrounds require one placement or as many, not 3"):
        paste(image, image, PLACEMENTS[:3])
    with pytest.raises(ValueError, match="boxes differ in size"):
        crop(image, [Placement(0.65), Placement(0.5)])
