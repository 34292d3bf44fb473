"""Our Adam is torch's, to the bit, and takes over its state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from fusedream_nb.method.adam import Adam


def problem(seed: int) -> tuple[list[Tensor], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    parameters = [torch.randn(shape, generator=rng).requires_grad_() for shape in ((3, 5), (7,))]
    return parameters, torch.randn(5, 7, generator=rng)


def descend(optimiser: object, parameters: list[Tensor], matrix: Tensor, steps: int) -> None:
    for _ in range(steps):
        loss = (parameters[0] @ matrix @ parameters[1]).sin().sum()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimiser.step()  # type: ignore[attr-defined]


@pytest.mark.parametrize("lr", [1e-3, 0.3])
def test_it_takes_torchs_steps_and_goes_on_from_its_state(lr: float) -> None:
    mine, matrix = problem(1)
    theirs, _ = problem(1)
    ours, torchs = Adam(mine, lr), torch.optim.Adam(theirs, lr=lr)
    descend(ours, mine, matrix, 20)
    descend(torchs, theirs, matrix, 20)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    for state in (torchs.state_dict(), ours.state_dict()):
        again, continued = ([p.detach().clone().requires_grad_() for p in theirs] for _ in range(2))
        fresh, reference = Adam(again, lr), torch.optim.Adam(continued, lr=lr)
        fresh.load_state_dict(copy.deepcopy(state))
        reference.load_state_dict(copy.deepcopy(torchs.state_dict()))
        descend(fresh, again, matrix, 3)
        descend(reference, continued, matrix, 3)
        assert all(torch.equal(a, b) for a, b in zip(again, continued, strict=True))


def test_another_rate_counts_from_the_next_step_and_no_gradient_is_no_move() -> None:
    (first, second), _ = problem(2)
    adam = Adam([first, second], 0.1)
    first.grad = torch.ones_like(first)
    before = first.detach().clone(), second.detach().clone()
    adam.step()
    torch.testing.assert_close(first.detach(), before[0] - 0.1)  # the first step's length is the rate
    assert torch.equal(second, before[1])
    adam.lr = 0.0
    moved = first.detach().clone()
    adam.step()
    assert torch.equal(first, moved)
