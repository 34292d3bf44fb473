"""Random patches: where they lie, what they show, their law."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusedream_nb.method import views as cutouts
from fusedream_nb.method.config import packed, unpacked
from fusedream_nb.method.views import Cutouts, Places


def one(side: float, x: float, y: float) -> Places:
    return Places(*(torch.tensor([[value]]) for value in (side, x, y)))


def picture(height: int, width: int, n: int = 1) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_whole_picture_is_itself() -> None:
    image = picture(32, 32)
    torch.testing.assert_close(cutouts.cut(image, one(1, 0.3, 0.9), 32), image, atol=1e-5, rtol=0)


def test_a_patch_of_the_encoders_size_is_a_crop_of_whole_pixels() -> None:
    image = picture(40, 64)
    places = one(0.5, 0.5, 0.25)
    assert places.boxes(40, 64).tolist() == [[[22.0, 5.0, 20.0]]]
    mine = cutouts.cut(image, places, 20)
    torch.testing.assert_close(mine, image[:, :, 5:25, 22:42], atol=1e-5, rtol=0)


def test_half_the_size_is_the_mean_of_four_pixels() -> None:
    image = picture(32, 32)
    torch.testing.assert_close(
        cutouts.cut(image, one(1, 0, 0), 16), F.avg_pool2d(image, 2), atol=1e-5, rtol=0
    )


@given(
    st.integers(5, 50),
    st.integers(5, 50),
    st.integers(1, 6),
    st.floats(0.05, 1),
    st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_patches_lie_inside_and_are_large_enough(
    height: int, width: int, patches: int, smallest: float, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    places = Cutouts(patches, smallest).sample(2, rng)
    left, top, side = places.boxes(height, width).unbind(-1)
    assert (side >= max(1, int(smallest * min(height, width) - 1e-3))).all()
    assert (left >= 0).all() and (left + side <= width).all()
    assert (top >= 0).all() and (top + side <= height).all()
    image = picture(height, width, 2).requires_grad_()
    out = cutouts.cut(image, places, 8)
    assert out.shape == (2 * patches, 3, 8, 8)
    assert out.abs().max() <= 1 + 1e-5
    (gradient,) = torch.autograd.grad(out.sum(), image)
    torch.testing.assert_close(gradient.sum(), torch.tensor(out.numel()).float(), atol=0.1, rtol=1e-4)


def test_the_sizes_have_the_artists_law() -> None:
    n, rng = 20_000, torch.Generator().manual_seed(2)
    side = Cutouts(n, 0.4).sample(1, rng).boxes(480, 640)[..., 2]
    u = torch.rand(n, generator=rng)
    reference = (u * (480 - 192) + 192).int().float()
    grid = torch.linspace(0.02, 0.98, 25)
    torch.testing.assert_close(side[0].quantile(grid), reference.quantile(grid), atol=8, rtol=0)


def test_places_are_uniform_over_the_room_that_is_left() -> None:
    places = Cutouts(30_000, 0.75).sample(1, torch.Generator().manual_seed(3))
    left, top, side = places.boxes(4, 6)[0].unbind(-1)
    counts = left[side == 3].long().bincount() / (side == 3).sum()
    torch.testing.assert_close(counts, torch.full((4,), 0.25), atol=0.02, rtol=0)
    assert top[side == 3].long().bincount().min() > 0.45 * (side == 3).sum()


def test_one_rng_gives_the_same_patches_and_a_batch_is_each_alone() -> None:
    def rngs() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (4, 9)]

    image = picture(30, 40, 2)
    together = cutouts.cut(image, Cutouts(3).sample(2, rngs()), 16)
    alone = [cutouts.cut(image[i : i + 1], Cutouts(3).sample(1, rngs()[i]), 16) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))
    shared = Cutouts(3).sample(1, rngs()[0]).expand(2)
    assert shared.count == 3
    assert torch.equal(shared.boxes(30, 40)[0], shared.boxes(30, 40)[1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"count": 0}, "cutouts must be at least 1, not 0"),
        ({"min_size": 0.0}, "in \\(0, 1\\], not 0.0"),
        ({"min_size": 1.2}, "in \\(0, 1\\], not 1.2"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Cutouts(**arguments)


def test_older_records_are_read_and_what_is_no_setting_any_more_is_refused() -> None:
    old = packed(Cutouts(5)) | {"power": 1.0, "rotation": 0.0}
    assert unpacked({"cutouts": old, "stop": -math.inf}, (Cutouts,)) == {"cutouts": Cutouts(5)}
    for name, value in (("power", 2.0), ("rotation", 30.0), ("stop", [0.5, 0.5])):
        with pytest.raises(ValueError, match=f"made with {name} = .* this version does not have"):
            unpacked({"cutouts": old | {name: value}}, (Cutouts,))
