"""In which precision networks compute, and how many pictures are held at once."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import fusedream_nb as fd
from fusedream_nb.models import Later, Models, resolve_dtype
from fusedream_nb.models.compute import LOSS_SCALE, compute, pictures_at_once

CUDA = torch.device("cuda")


class Owner:
    """Something with a precision."""

    name, dtype = "The network", torch.float16


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float16(
    monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype
) -> None:
    """As a T4 does, of which torch says without the argument that it has bfloat16."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native
    )
    assert resolve_dtype(CUDA, embedded=False) is dtype


def test_in_float16_values_are_near_and_small_gradients_survive(rng: torch.Generator) -> None:
    """A gradient below 2⁻²⁴, float16's smallest number, would be 0 without the scale."""
    layer = nn.Linear(8, 8).requires_grad_(False)
    layer.weight.copy_(torch.randn(8, 8, generator=rng) / 8**0.5)
    x = torch.randn(3, 8, generator=rng).requires_grad_()
    owner, exact = Owner(), layer(x)
    rounded = compute(owner, layer, x)
    assert rounded.dtype == torch.float32 and 0 < (rounded - exact).abs().max() < 1e-2
    tiny, smallest = 1e-9, 2.0**-24
    mine, theirs = (torch.autograd.grad((y * tiny).sum(), x)[0] for y in (rounded, exact))
    assert tiny * LOSS_SCALE > smallest > tiny
    torch.testing.assert_close(mine, theirs, rtol=0.05, atol=smallest / LOSS_SCALE)  # a step of float16


@pytest.mark.parametrize("inputs", [1, 2])
def test_what_overflows_in_float16_is_computed_in_float32_from_then_on_with_one_line(
    rng: torch.Generator, inputs: int
) -> None:
    layer = nn.Linear(8, 8).requires_grad_(False)
    nn.init.constant_(layer.weight, 3e4)
    xs = [torch.rand(2, 8, generator=rng).requires_grad_() for _ in range(inputs)]

    def network(*xs: Tensor) -> Tensor:
        return sum(layer(x) for x in xs)  # type: ignore[return-value]

    owner = Owner()
    with pytest.warns(UserWarning, match="The network overflows in float16; it computes in float32") as told:
        large = compute(owner, network, *xs)
    assert len(told) == 1 and owner.dtype is torch.float32
    torch.testing.assert_close(large, network(*xs))
    assert torch.autograd.grad(large.sum(), xs[-1])[0].isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compute(owner, network, *xs)


def test_stickers_in_float16_draw_and_read_nearly_the_same(rng: torch.Generator) -> None:
    models = fd.load("stickers", device="cpu")
    latent = models.generator.sample(2, rng)
    image = models.generator.decode(latent)
    vectors = models.clip.encode_image(image)
    half = models.generator.to(torch.device("cpu"), torch.float16).decode(latent)
    assert 0 < (half - image).abs().mean() < 0.01
    halves = models.clip.to(torch.device("cpu"), torch.float16).encode_image(image)
    assert halves.dtype == torch.float32
    assert 0 < (1 - (halves * vectors).sum(1)).max() < 1e-4


def test_pictures_that_are_climbed_take_more_memory_the_more_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU of 15 GB as Colab's: more than the one or two that a CPU's cache holds, and never none."""
    free = 15 * 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    looked, few, many = (pictures_at_once(256, CUDA, copies=copies) for copies in (0, 4, 50))
    assert looked == 32 > few > many >= 1
    assert many * (50 * 40 * 2**20) <= free
    assert pictures_at_once(512, torch.device("cpu"), copies=50) == 1
    free = 2**20
    assert pictures_at_once(256, CUDA, copies=50) == 1


def test_what_is_loaded_later_is_loaded_once_and_only_when_it_is_read() -> None:
    made: list[int] = []
    models = fd.load("stickers", device="cpu")
    later = Later(lambda: made.append(1) or models.clip)  # type: ignore[func-returns-value]
    lazy = Models("x", "", models.generator, models.clip, later, later, models.device, models.dtype)  # type: ignore[arg-type]
    assert not made and lazy.generator is models.generator
    assert lazy.judge is lazy.judge is models.clip is lazy.perceptual
    assert made == [1]
