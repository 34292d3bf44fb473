"""The mean loss and transport: limits, marginals, gradients, references."""

from __future__ import annotations

import math

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fusedream_nb.method.ot import (
    cost_scale,
    marginal_weights,
    mean_loss,
    mean_plan,
    sinkhorn,
    transport_loss,
)

TIGHT = {"tolerance": 1e-11, "iterations": 10_000}
sizes = st.tuples(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32))


def some_costs(n: int, m: int, seed: int = 0) -> Tensor:
    """Costs like CLIP's: patches scatter a little, about a level that each prompt has for its own."""
    rng = torch.Generator().manual_seed(seed)
    scatter = torch.randn(n, m, generator=rng, dtype=torch.float64) * 0.03
    return 0.75 + scatter + torch.rand(m, generator=rng, dtype=torch.float64) * 0.2


def some_shares(m: int, seed: int = 0) -> Tensor:
    weights = torch.rand(m, generator=torch.Generator().manual_seed(seed)) + 0.2
    return marginal_weights(weights.tolist(), m)


def plain_sinkhorn(costs: Tensor, epsilon: float, b: Tensor, iterations: int) -> Tensor:
    """Sinkhorn in the log domain as the books have it, for one picture [n, m]."""
    n, m = costs.shape
    a = torch.full((n,), 1 / n, dtype=costs.dtype)
    f, g = torch.zeros(n, dtype=costs.dtype), torch.zeros(m, dtype=costs.dtype)
    for _ in range(iterations):
        f = epsilon * (a.log() - ((g[None, :] - costs) / epsilon).logsumexp(1))
        g = epsilon * (b.log() - ((f[:, None] - costs) / epsilon).logsumexp(0))
    return ((f[:, None] + g[None, :] - costs) / epsilon).exp()


@given(st.integers(16, 64), st.integers(1, 6), st.integers(0, 2**32), st.sampled_from([0.1, 0.3, 2.0]))
@settings(max_examples=40, deadline=None)
def test_the_marginals_hold(n: int, m: int, seed: int, relative: float) -> None:
    costs, b = some_costs(n, m, seed), some_shares(m, seed)
    plan = sinkhorn(costs, relative * cost_scale(costs), b).plan
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(1), torch.full((n,), 1 / n, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(plan.sum(0), b, atol=0, rtol=1.1e-3)


@given(sizes, st.sampled_from([0.5, 2.0]))
@settings(max_examples=20, deadline=None)
def test_the_plan_is_that_of_the_books_sinkhorn(size: tuple[int, int, int], relative: float) -> None:
    n, m, seed = size
    costs, b = some_costs(n, m, seed), some_shares(m, seed)
    epsilon = relative * float(cost_scale(costs))
    plan = sinkhorn(costs, epsilon, b, tolerance=1e-9).plan
    torch.testing.assert_close(plan, plain_sinkhorn(costs, epsilon, b, 500), atol=1e-7, rtol=0)


@pytest.mark.parametrize("relative", [0.1, 1.0])
def test_the_plan_and_the_loss_are_pots(relative: float) -> None:
    costs, b = some_costs(64, 3), some_shares(3)
    epsilon = relative * float(cost_scale(costs))
    reference = ot.solve(costs, b=b, reg=epsilon, reg_type="KL", max_iter=20_000, tol=1e-12)
    loss, (plan, *_) = transport_loss(costs, epsilon, b, **TIGHT)
    torch.testing.assert_close(plan, reference.plan, atol=1e-9, rtol=0)
    torch.testing.assert_close(loss, reference.value, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("n", "m"), [(64, 2), (64, 6), (7, 3)])
def test_a_large_epsilon_gives_the_mean_loss(n: int, m: int) -> None:
    costs, b = some_costs(n, m), some_shares(m)
    loss, (plan, *_) = transport_loss(costs, 1e5, b, **TIGHT)
    torch.testing.assert_close(loss, mean_loss(costs, b), atol=1e-6, rtol=0)
    torch.testing.assert_close(plan, mean_plan(costs, b), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n", "m"), [(64, 2), (60, 3)])
def test_a_small_epsilon_gives_the_exact_assignment(n: int, m: int) -> None:
    costs, b = some_costs(n, m), torch.full((m,), 1 / m).double()
    exact = torch.from_numpy(ot.emd(torch.full((n,), 1 / n).double().numpy(), b.numpy(), costs.numpy()))
    loss, (plan, *_) = transport_loss(
        costs, 2e-3 * float(cost_scale(costs)), b, tolerance=1e-4, iterations=40_000
    )
    torch.testing.assert_close(loss, (exact * costs).sum(), atol=1e-4, rtol=0)
    assert (plan - exact).abs().sum() < 0.02
    assert loss < mean_loss(costs, b) - 0.1 * costs.std()


def test_the_gradient_is_the_plan_and_finite_differences() -> None:
    costs, b = some_costs(9, 3).requires_grad_(), some_shares(3)
    epsilon = 0.3 * float(cost_scale(costs))
    loss, (plan, *_) = transport_loss(costs, epsilon, b, **TIGHT)
    (gradient,) = torch.autograd.grad(loss, costs)
    torch.testing.assert_close(gradient, plan, atol=1e-12, rtol=0)
    for i, j in ((0, 0), (4, 1), (8, 2)):
        moved = torch.zeros_like(costs)
        moved[i, j] = 1e-5
        high, low = (transport_loss(costs.detach() + s * moved, epsilon, b, **TIGHT)[0] for s in (1, -1))
        torch.testing.assert_close((high - low) / 2e-5, plan[i, j], atol=1e-6, rtol=0)


@given(sizes)
@settings(max_examples=25, deadline=None)
def test_patches_and_prompts_have_no_order(size: tuple[int, int, int]) -> None:
    n, m, seed = size
    costs, b = some_costs(n, m, seed), some_shares(m, seed)
    rng = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(n, generator=rng), torch.randperm(m, generator=rng)
    loss, (plan, *_) = transport_loss(costs, 0.05, b, tolerance=1e-9)
    mixed, (other, *_) = transport_loss(costs[rows][:, columns], 0.05, b[columns], tolerance=1e-9)
    torch.testing.assert_close(mixed, loss, atol=1e-9, rtol=0)
    torch.testing.assert_close(other, plan[rows][:, columns], atol=1e-8, rtol=0)


def test_in_units_of_the_spread_epsilon_knows_neither_scale_nor_level() -> None:
    costs, b = some_costs(64, 3), some_shares(3)
    other = 7 * costs + torch.linspace(0, 5, 64).double()[:, None] + torch.tensor([0.0, 3.0, -1.0])
    torch.testing.assert_close(cost_scale(other), 7 * cost_scale(costs))
    plans = [sinkhorn(c, 0.1 * cost_scale(c), b, **TIGHT).plan for c in (costs, other)]
    torch.testing.assert_close(plans[1], plans[0], atol=1e-9, rtol=0)


def test_costs_that_are_all_the_same_are_shared_out() -> None:
    for costs in (torch.full((8, 3), 0.8), torch.rand(8, 1), torch.rand(8, 1).expand(8, 3)):
        b = some_shares(costs.shape[1])
        plan = sinkhorn(costs, 0.1 * cost_scale(costs), b).plan
        torch.testing.assert_close(plan, mean_plan(costs, b), atol=1e-6, rtol=0)


def test_single_precision_bears_a_small_epsilon_and_prompts_far_apart() -> None:
    costs, b = some_costs(64, 4).float() + torch.tensor([0.0, 1.0, 0.0, -2.0]), some_shares(4)
    plan = sinkhorn(costs, 0.02 * cost_scale(costs), b).plan
    torch.testing.assert_close(plan.sum(0), b.float(), atol=0, rtol=2e-3)
    reference = sinkhorn(costs.double(), 0.02 * cost_scale(costs.double()), b, tolerance=1e-6).plan
    assert (plan * 64 - reference * 64).abs().max() < 0.05


def test_a_batch_is_each_alone() -> None:
    costs = torch.stack([some_costs(20, 3, seed) * (1 + seed) for seed in range(4)])
    b = some_shares(3)
    loss, (plan, *_) = transport_loss(costs, 0.2 * cost_scale(costs), b, **TIGHT)
    for i, one in enumerate(costs):
        its, (own, *_) = transport_loss(one, 0.2 * float(cost_scale(one)), b, **TIGHT)
        torch.testing.assert_close((loss[i], plan[i]), (its, own), atol=1e-8, rtol=0)


def test_what_stops_early_is_reported_and_warned_of() -> None:
    costs, b = some_costs(64, 3), some_shares(3)
    epsilon = 0.05 * float(cost_scale(costs))
    whole = sinkhorn(costs, epsilon, b)
    assert whole.converged and 4 <= whole.iterations < 1000
    with pytest.warns(UserWarning, match="Sinkhorn stopped after 3 iterations"):
        found = transport_loss(costs, epsilon, b, iterations=3)[1]
    assert (found.converged, found.iterations) == (False, 3)
    torch.testing.assert_close(found.plan.sum(1), torch.full((64,), 1 / 64).double())  # the rows hold


def test_the_mean_loss_is_equation_1_and_takes_negative_weights() -> None:
    costs = some_costs(64, 3)
    torch.testing.assert_close(mean_loss(costs, marginal_weights(None, 3)), costs.mean())
    weighted = (3 * costs[:, 0] - costs[:, 1] + costs[:, 2]).mean() / 5
    torch.testing.assert_close(mean_loss(costs, marginal_weights([3, -1, 1], 3)), weighted)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([1, 2], "3 prompts require 3 weights, not 2"),
        ([1, 0, 1], "other than 0"),
        ([1, math.nan, 1], "finite"),
    ],
)
def test_wrong_weights_are_refused(weights: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        marginal_weights(weights, 3)


@pytest.mark.parametrize(("epsilon", "weights"), [(0.0, [1, 1]), (0.1, [1, -1])])
def test_transport_wants_positive_numbers(epsilon: float, weights: list[float]) -> None:
    with pytest.raises(ValueError, match="ε and every weight above 0"):
        sinkhorn(some_costs(4, 2), epsilon, marginal_weights(weights, 2))
