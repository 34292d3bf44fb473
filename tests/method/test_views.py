"""The fast augmentations against DiffAugment done the plain way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusedream_nb.method import views
from fusedream_nb.method.views import ALL, Copies

NEUTRAL = {
    "brightness": 0.0,
    "saturation": 1.0,
    "contrast": 1.0,
    "shift_x": 0.0,
    "shift_y": 0.0,
    "ratio": 1.0,
    "cut_x": 0.0,
    "cut_y": 0.0,
    "cut": 0.0,
}


def one(**numbers: float) -> Copies:
    """One augmentation of one image, given by its numbers."""
    return Copies(**{name: torch.tensor([[value]]) for name, value in {**NEUTRAL, **numbers}.items()})


def plain(image: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """DiffAugment as its definition reads, one operation after another, for one image [1, 3, s, s]."""

    def u(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    side = image.shape[-1]
    x = image + u(-0.5, 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * u(0, 2) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * u(0.5, 1.5) + mean
    limit = int(0.125 * side + 0.5)
    dx, dy = (int(torch.randint(-limit, limit + 1, (), generator=rng)) for _ in range(2))
    x = F.pad(x, (limit, limit, limit, limit))[:, :, limit - dy :, limit - dx :][:, :, :side, :side]
    x = plain_resize(x, u(0.8, 1.2))
    x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
    wide = int(0.5 * size + 0.5)
    cx, cy = (int(torch.randint(0, size + (1 - wide % 2), (), generator=rng)) for _ in range(2))
    x[
        :, :, max(0, cy - wide // 2) : cy - wide // 2 + wide, max(0, cx - wide // 2) : cx - wide // 2 + wide
    ] = 0
    return x


def plain_resize(x: Tensor, ratio: float) -> Tensor:
    """Resize to ``ratio`` of the size, then pad with zeros or crop the middle."""
    side = x.shape[-1]
    new = int(side * ratio)
    x = F.interpolate(x, (new, new), mode="bilinear", align_corners=False)
    first = abs(side - new) // 2
    if new >= side:
        return x[:, :, first : first + side, first : first + side]
    rest = side - new - first
    return F.pad(x, (first, rest, first, rest))


def smooth_pictures(n: int, side: int, rng: torch.Generator) -> Tensor:
    coarse = torch.rand(n, 3, 5, 5, generator=rng) * 2 - 1
    return F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)


def test_no_augmentation_is_the_identity(rng: torch.Generator) -> None:
    image = smooth_pictures(2, 64, rng)
    same = views.augment(image, views.sample(2, 3, rng, ()))
    torch.testing.assert_close(same, image.repeat_interleave(3, 0), atol=1e-5, rtol=0)


def test_colour_is_diffaugments(rng: torch.Generator) -> None:
    image = smooth_pictures(1, 32, rng)
    b, s, c = 0.3, 1.7, 0.6
    x = image + b
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * s + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    reference = (x - mean) * c + mean
    mine = views.augment(image, one(brightness=b, saturation=s, contrast=c))
    torch.testing.assert_close(mine, reference, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dx", "dy"), [(8, -8), (3, 5), (-1, 0)])
def test_translation_moves_whole_pixels_and_fills_with_grey(rng: torch.Generator, dx: int, dy: int) -> None:
    image = smooth_pictures(1, 64, rng)
    # Shifts are shares of the side; 8.5 pixels of 64 are the whole range of 17 shifts.
    mine = views.augment(image, one(shift_x=dx / 68 * 0.999, shift_y=dy / 68 * 0.999))
    reference = torch.zeros_like(image)
    to_y, to_x = slice(max(dy, 0), 64 + min(dy, 0)), slice(max(dx, 0), 64 + min(dx, 0))
    from_y, from_x = slice(max(-dy, 0), 64 - max(dy, 0)), slice(max(-dx, 0), 64 - max(dx, 0))
    reference[:, :, to_y, to_x] = image[:, :, from_y, from_x]
    torch.testing.assert_close(mine, reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize("ratio", [0.8125, 1.1875])
def test_resize_pads_or_crops_the_middle(rng: torch.Generator, ratio: float) -> None:
    image = smooth_pictures(1, 64, rng)
    mine = views.augment(image, one(ratio=ratio))
    torch.testing.assert_close(mine, plain_resize(image, ratio), atol=0.05, rtol=0)
    assert (mine - plain_resize(image, ratio)).abs().mean() < 0.01


def test_what_left_the_frame_does_not_come_back_when_it_shrinks() -> None:
    image = torch.ones(1, 3, 64, 64)
    mine = views.augment(image, one(shift_x=-0.12, ratio=0.8))
    # 52 of 64 pixels are the frame; 8 of its right edge were left empty by the shift.
    assert mine[0, 0, 32].gt(0.5).sum() == round((64 - 8) * 0.8)


def test_cutout_is_half_the_side_and_clipped() -> None:
    image = torch.ones(1, 3, 64, 64)
    middle = views.augment(image, one(cut=0.5, cut_x=0.5, cut_y=0.5))
    assert (middle == 0).sum() == 3 * 32 * 32
    corner = views.augment(image, one(cut=0.5, cut_x=0.0, cut_y=0.0))
    assert (corner == 0).sum() == 3 * 16 * 16


@pytest.mark.parametrize("size", [64, 48])
def test_moments_are_those_of_the_plain_way(size: int) -> None:
    rng = torch.Generator().manual_seed(1)
    image = smooth_pictures(1, 64, rng)
    n = 3000
    mine = views.augment(image, views.sample(1, n, rng), size)
    reference = torch.cat([plain(image, size, rng) for _ in range(n)])
    error = (mine.var(0) / n + reference.var(0) / n).sqrt() + 1e-3
    z = (mine.mean(0) - reference.mean(0)) / error
    assert z.abs().mean() < 1.5  # 0.8 for a standard normal; the copies' pixels move together
    assert (mine.std(0) - reference.std(0)).abs().mean() < 0.02


@pytest.mark.parametrize(("side", "size", "boxes"), [(128, 64, 2), (200, 64, 3), (127, 64, 1), (256, 224, 1)])
def test_a_picture_of_twice_the_size_or_more_is_averaged_over_boxes_first(
    rng: torch.Generator, side: int, size: int, boxes: int
) -> None:
    image, numbers = smooth_pictures(2, side, rng), views.sample(2, 3, rng)
    noise = 2 * torch.randint(2, (2, 3, side, side), generator=rng) - 1.0  # what lies between two readings
    small = F.avg_pool2d(image, boxes)
    torch.testing.assert_close(views.augment(image, numbers, size), views.augment(small, numbers, size))
    plain = views.sample(2, 1, rng, ())
    left = views.augment(noise, plain, size).std()
    assert left < (0.75 if boxes == 1 else 1.2 / boxes)  # of 1: white noise averages out


@given(st.sets(st.sampled_from(ALL)), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_any_policy_any_batch(policy: set[str], n: int, copies: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    image = smooth_pictures(n, 24, rng).requires_grad_()
    out = views.augment(image, views.sample(n, copies, rng, policy), 16)
    assert out.shape == (n * copies, 3, 16, 16)
    assert out.isfinite().all()
    (gradient,) = torch.autograd.grad(out.sum(), image)
    assert gradient.isfinite().all()


def test_an_image_of_a_batch_gets_what_it_gets_alone() -> None:
    def rngs() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (4, 9)]

    image = smooth_pictures(2, 32, torch.Generator().manual_seed(2))
    together = views.augment(image, views.sample(2, 3, rngs()))
    alone = [views.augment(image[i : i + 1], views.sample(1, 3, rngs()[i])) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_wrong_arguments_are_refused(rng: torch.Generator) -> None:
    with pytest.raises(ValueError, match="Unknown augmentation 'blur'; known are colour"):
        views.sample(1, 1, rng, ["blur"])
    with pytest.raises(ValueError, match="at least 1, not 0"):
        views.sample(1, 0, rng)
    with pytest.raises(ValueError, match="2 images require 2 generators"):
        views.sample(2, 1, [rng])
