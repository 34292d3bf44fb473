"""The dynamic barrier: its promise, the projection that it is, its limits; its rivals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from torch import Tensor

from fusedream_nb.method.barrier import (
    FLOOR,
    InverseRule,
    LinearRule,
    ScoreRule,
    bilevel,
    rule,
    two_gradients,
)

numbers = st.floats(-1e3, 1e3).map(lambda x: 0.0 if abs(x) < 1e-3 else x)
pairs = arrays(float, st.tuples(st.just(2), st.just(3), st.integers(1, 12)), elements=numbers)
betas = st.floats(0, 100)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)


@given(pairs, betas)
def test_the_step_lets_the_score_rise_by_beta_of_its_gradient(pair: np.ndarray, beta: float) -> None:
    """⟨v, ∇s⟩ ≤ -β‖∇s‖², with equality wherever λ > 0."""
    loss, score = torch.from_numpy(pair)
    v, lam = bilevel(loss, score, beta)
    slack = 1e-9 * (1 + loss.norm(dim=1) * score.norm(dim=1) + beta * dot(score, score))
    rise, wanted = -dot(v, score), beta * dot(score, score)
    assert (rise >= wanted - slack).all()
    assert ((rise - wanted).abs() <= slack)[lam > 0].all()


@given(pairs, betas)
def test_lambda_is_0_exactly_where_the_loss_obeys_already(pair: np.ndarray, beta: float) -> None:
    loss, score = torch.from_numpy(pair)
    v, lam = bilevel(loss, score, beta)
    obeys = -dot(loss, score) >= beta * dot(score, score)
    assert torch.equal(lam == 0, obeys)
    assert torch.equal(v[obeys], loss[obeys])


@given(
    arrays(float, (2, 1, 4), elements=st.floats(-3, 3).map(lambda x: round(x, 2))),
    st.floats(0, 3).map(lambda x: round(x, 2)),
)
@settings(max_examples=40, deadline=None)
def test_it_is_the_nearest_direction_that_keeps_the_promise(pair: np.ndarray, beta: float) -> None:
    """min ½‖v - ∇ℓ‖² subject to ⟨v, ∇s⟩ ≤ -β‖∇s‖², by a solver that knows nothing of Eq. 6."""
    loss, score = pair[:, 0]
    assume(np.linalg.norm(score) > 0.05)
    promise = {
        "type": "ineq",
        "fun": lambda v: -beta * score @ score - v @ score,
        "jac": lambda v: -score,
    }
    solved = minimize(
        lambda v: 0.5 * (v - loss) @ (v - loss), np.zeros(4), jac=lambda v: v - loss,
        method="SLSQP", constraints=[promise], options={"ftol": 1e-12, "maxiter": 200},
    )  # fmt: skip
    v, _ = bilevel(torch.from_numpy(pair[0]), torch.from_numpy(pair[1]), beta)
    np.testing.assert_allclose(v[0].numpy(), solved.x, atol=1e-4)


def test_eq_6_by_hand() -> None:
    loss, score = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 0.0]])
    v, lam = bilevel(loss, score, beta=1.0)  # λ = (1 · 4 + 2) / 4
    assert lam.tolist() == [1.5]
    assert v.tolist() == [[-2.0, 2.0]]
    v, lam = bilevel(-loss, score, beta=0.25)  # λ = max((1 - 2) / 4, 0)
    assert lam.tolist() == [0.0]
    assert v.tolist() == [[-1.0, -2.0]]


@given(pairs)
def test_beta_0_only_forbids_the_score_to_fall(pair: np.ndarray) -> None:
    """Where the gradients agree nothing is changed, elsewhere v is ∇ℓ without its part along ∇s."""
    loss, score = torch.from_numpy(pair)
    v, _ = bilevel(loss, score, 0.0)
    square = dot(score, score).clamp(min=FLOOR)
    projected = loss - (dot(loss, score) / square)[:, None] * score
    torch.testing.assert_close(v, torch.where((dot(loss, score) > 0)[:, None], projected, loss))


@given(pairs)
def test_large_beta_is_augclip_alone(pair: np.ndarray) -> None:
    loss, score = torch.from_numpy(pair)
    assume(bool((score.norm(dim=1) > 0.5).all()))
    v, _ = bilevel(loss, score, 1e12)
    torch.testing.assert_close(v / 1e12, ScoreRule()(loss, score)[0], atol=1e-6, rtol=1e-6)


def test_at_a_maximum_of_the_score_only_the_loss_counts(rng: torch.Generator) -> None:
    loss = torch.randn(2, 5, generator=rng)
    v, lam = bilevel(loss, torch.zeros(2, 5), 1.0)
    assert torch.equal(v, loss)
    assert lam.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("length", [1e-2, 1e-6, 1e-9, 1e-13, 1e-25])
def test_small_gradients_of_the_score_never_blow_the_step_up(rng: torch.Generator, length: float) -> None:
    loss, score = (torch.randn(200, 8, generator=rng) for _ in range(2))
    v, _ = bilevel(loss, score * length, 1.0)
    assert v.isfinite().all()
    assert (v.norm(dim=1) <= loss.norm(dim=1) + 2 * length * score.norm(dim=1)).all()


def test_each_run_is_by_itself(rng: torch.Generator) -> None:
    loss, score = (torch.randn(6, 9, generator=rng) for _ in range(2))
    together = bilevel(loss, score, 0.7)
    alone = [bilevel(loss[i : i + 1], score[i : i + 1], 0.7) for i in range(6)]
    for i in (0, 1):
        torch.testing.assert_close(together[i], torch.cat([one[i] for one in alone]))


def test_linear_is_the_gradient_of_eq_7() -> None:
    x = torch.tensor([[0.3, -1.2]], requires_grad=True)
    loss, score = x.pow(4).sum(1), x.sin().sum(1)
    (expected,) = torch.autograd.grad((0.7 * loss - 0.3 * score).sum(), x, retain_graph=True)
    v, lam = LinearRule(0.3)(*two_gradients(loss, score, [x]))
    torch.testing.assert_close(v, expected)
    assert lam.tolist() == pytest.approx([0.3])


@given(pairs, betas)
def test_inverse_keeps_its_promise_to_the_loss(pair: np.ndarray, beta: float) -> None:
    loss, score = torch.from_numpy(pair)
    v, lam = InverseRule(beta)(loss, score)
    square = dot(loss, loss)
    torch.testing.assert_close(v, lam[:, None] * loss - score)
    torch.testing.assert_close(
        lam, ((beta * square + dot(loss, score)) / square.clamp(min=FLOOR)).clamp(min=0)
    )
    slack = 1e-9 * (1 + loss.norm(dim=1) * score.norm(dim=1) + beta * square)
    assert (dot(v, loss) >= beta * square - slack).all()


def two_goals(x: Tensor) -> tuple[Tensor, Tensor]:
    """A loss that is least at the origin and a score that is highest on the line x + y = 2."""
    return x.square().sum(1), -(x.sum(1) - 2).square()


@pytest.mark.parametrize(
    ("rival", "end"),
    [("bilevel", (1.0, 1.0)), ("augclip", (2.0, 0.0)), ("inverse", (0.0, 0.0)), ("linear", (2 / 3, 2 / 3))],
)
def test_plain_steps_end_where_each_problem_is_solved(rival: str, end: tuple[float, float]) -> None:
    """Bi-level: the least loss among the best scores. Linear at λ = ½: neither. Inverse: the least loss."""
    x = torch.tensor([[3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    way = rule(rival)
    for _ in range(300):
        step, _ = way(*two_gradients(*two_goals(x), [x]))
        x = (x - 0.02 * step).detach().requires_grad_()
    torch.testing.assert_close(x.detach()[0], torch.tensor(end, dtype=torch.float64), atol=0.02, rtol=0)


def test_both_gradients_are_over_each_runs_own_variables(rng: torch.Generator) -> None:
    first = torch.randn(3, 2, 3, generator=rng).requires_grad_()
    second = torch.randn(3, 4, generator=rng).requires_grad_()
    loss = first.square().sum((1, 2)) * second.sum(1)
    score = first.sum((1, 2)) + second.square().sum(1)
    of_loss, of_score = two_gradients(loss, score, [first, second])
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        row = torch.cat([(2 * a * b.sum()).flatten(), a.square().sum().expand(4)])
        torch.testing.assert_close(of_loss[i], row.detach())
        torch.testing.assert_close(of_score[i], torch.cat([torch.ones(6), 2 * b]).detach())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "triple"}, "No rule is called 'triple'; known are bilevel, linear, inverse, augclip"),
        ({"beta": -1.0}, "β must be 0 or more, and finite, not -1.0"),
        ({"beta": float("nan")}, "β must be 0 or more, and finite, not nan"),
        ({"name": "linear", "lam": 1.5}, r"λ of the linear combination must lie in \[0, 1\], not at 1.5"),
    ],
)
def test_a_rule_out_of_range_is_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        rule(**arguments)
