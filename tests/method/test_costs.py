"""Distances and the cost plane: known values, symmetries, finite differences."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from fusedream_nb.method.ot import (
    DISTANCES,
    cosine,
    geodesic,
    pull_back,
    push_forward,
)

each_distance = pytest.mark.parametrize("name", DISTANCES)


def unit(n: int, seed: int, dim: int = 12) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, dim, generator=rng, dtype=torch.float64), dim=-1)


def test_the_distances_are_their_definitions() -> None:
    u, v = unit(9, 1), unit(4, 2)
    chord = torch.cdist(u, v)
    torch.testing.assert_close(cosine(u, v), chord.square() / 2)
    torch.testing.assert_close(geodesic(u, v), 2 * (chord / 2).asin())


@each_distance
def test_a_distance_is_of_the_angle_only(name: str) -> None:
    u, v = unit(9, 1).requires_grad_(), unit(4, 2)
    distance = DISTANCES[name]
    torch.testing.assert_close(distance(3 * u, 5 * v), distance(u, v))
    (gradient,) = torch.autograd.grad(distance(u, v)[:, 0].sum(), u)
    torch.testing.assert_close((gradient * u).sum(1), torch.zeros(9).double(), atol=1e-12, rtol=0)


@each_distance
def test_a_distance_is_finite_at_its_ends(name: str) -> None:
    u = unit(1, 1).float().requires_grad_()
    for sign, angle in ((1, 0.0), (-1, math.pi)):
        value = DISTANCES[name](u, sign * u.detach())
        (gradient,) = torch.autograd.grad(value.sum(), u)
        expected = {"cosine": 1 - math.cos(angle), "geodesic": angle}[name]
        assert value.item() == pytest.approx(expected, abs=1e-3)
        assert gradient.isfinite().all()


@each_distance
@given(st.integers(1, 8), st.integers(1, 7), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_the_push_forward_is_finite_differences_for_any_m(name: str, n: int, m: int, seed: int) -> None:
    """w is how fast the costs change when each patch moves along its own gradient."""
    distance, u, v = DISTANCES[name], unit(n, seed), unit(m, seed + 1)
    plan = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gradient = pull_back(distance, u, v, plan)
    h = 1e-6
    expected = (distance(u + h * gradient, v) - distance(u - h * gradient, v)) / (2 * h)
    torch.testing.assert_close(push_forward(distance, u, v, gradient), expected, atol=1e-7, rtol=0)


@each_distance
def test_the_gradient_is_autograds_and_ascends(name: str) -> None:
    distance, u, v = DISTANCES[name], unit(10, 3).requires_grad_(), unit(3, 4)
    plan = torch.rand(10, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (expected,) = torch.autograd.grad((plan * distance(u, v)).sum(), u)
    gradient = pull_back(distance, u, v, plan)
    torch.testing.assert_close(gradient, expected)
    rise = (plan * push_forward(distance, u, v, gradient)).sum(1)
    torch.testing.assert_close(rise, gradient.square().sum(1))


def test_the_first_push_forward_of_a_process_is_quiet() -> None:
    """A notebook keeps what is written to stderr, with the paths of the machine in it."""
    code = """
        import warnings
        import torch
        from fusedream_nb.method.ot import cosine, push_forward
        warnings.simplefilter("error")
        push_forward(cosine, torch.ones(1, 2), torch.eye(2), torch.ones(1, 2))
    """
    ran = subprocess.run(
        [sys.executable, "-c", inspect.cleandoc(code)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
