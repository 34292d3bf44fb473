"""Convolutions with less work, against the plain ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from fusedream_nb.models.compute import DoublingConv, FoldedDoublingConv, MatrixConv, double

Agree = Callable[..., None]
MANY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FOLDED = {
    "doubled": (DoublingConv, FoldedDoublingConv),
    "as a matrix": (partial(nn.Conv2d, kernel_size=3, padding=1), MatrixConv),
}
SIZES = st.integers(1, 7)


@MANY
@given(st.sampled_from(sorted(FOLDED)), SIZES, SIZES, SIZES, SIZES, st.integers(0, 2**31))
def test_a_folded_convolution_is_the_plain_one(
    agree: Agree, kind: str, channels: int, width: int, h: int, w: int, seed: int
) -> None:
    torch.manual_seed(seed)
    make, fold = FOLDED[kind]
    plain = make(channels, width).double().requires_grad_(False)
    agree(fold(plain), plain, torch.randn(2, channels, h, w).double(), 1e-10)


@pytest.mark.parametrize("kind", FOLDED)
def test_it_keeps_its_values_in_another_layout_of_the_memory(kind: str, rng: torch.Generator) -> None:
    torch.manual_seed(0)
    make, fold = FOLDED[kind]
    plain = make(8, 6).requires_grad_(False)
    x = torch.randn(2, 8, 5, 5, generator=rng)
    moved = fold(plain).to(memory_format=torch.channels_last)
    got = moved(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, plain(x), atol=1e-5, rtol=1e-4)


def test_doubling_repeats_each_pixel_four_times(rng: torch.Generator) -> None:
    x = torch.randn(2, 3, 4, 5, generator=rng)
    assert torch.equal(double(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_a_doubling_folded_costs_16_products_a_cell_and_not_36() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    def products(network: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 4, 10, 10))
        return counter.get_total_flops() // 2

    plain = DoublingConv(4, 3).requires_grad_(False)
    assert products(plain) == 36 * 100 * 4 * 3
    assert products(FoldedDoublingConv(plain)) == 16 * 100 * 4 * 3
