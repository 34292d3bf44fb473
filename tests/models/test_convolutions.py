"""Convolutions with less work, against the plain ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from fusedream_nb.models.convolutions import DoublingConv, FoldedDoublingConv, MatrixConv, double

Agree = Callable[..., None]
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIZES = st.integers(1, 7)


@MANY
@given(SIZES, SIZES, SIZES, SIZES, st.integers(0, 2**31))
def test_a_doubling_is_folded_into_the_convolution_after_it(
    agree: Agree, channels: int, width: int, h: int, w: int, seed: int
) -> None:
    torch.manual_seed(seed)
    plain = DoublingConv(channels, width).double().requires_grad_(False)
    agree(FoldedDoublingConv(plain), plain, torch.randn(2, channels, h, w).double(), 1e-10)


@MANY
@given(SIZES, SIZES, SIZES, SIZES, st.integers(0, 2**31))
def test_a_convolution_is_a_product_of_matrices(
    agree: Agree, channels: int, width: int, h: int, w: int, seed: int
) -> None:
    torch.manual_seed(seed)
    plain = nn.Conv2d(channels, width, 3, padding=1).double().requires_grad_(False)
    agree(MatrixConv(plain), plain, torch.randn(2, channels, h, w).double(), 1e-10)


def test_both_keep_their_values_in_another_layout_of_the_memory(rng: torch.Generator) -> None:
    torch.manual_seed(0)
    doubling, plain = (
        kind.requires_grad_(False) for kind in (DoublingConv(8, 6), nn.Conv2d(8, 6, 3, padding=1))
    )
    x = torch.randn(2, 8, 5, 5, generator=rng)
    for mine, theirs in ((FoldedDoublingConv(doubling), doubling), (MatrixConv(plain), plain)):
        moved = mine.to(memory_format=torch.channels_last)
        got = moved(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(got, theirs(x), atol=1e-5, rtol=1e-4)


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
