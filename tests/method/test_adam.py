"""Our Adam is torch's, to the bit, and goes on from its state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusedream_nb.method.barrier import Adam


def problem(seed: int) -> tuple[list[Tensor], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    parameters = [torch.randn(shape, generator=rng).requires_grad_() for shape in ((3, 5), (7,))]
    return parameters, torch.randn(5, 7, generator=rng)


def gradients(parameters: list[Tensor], matrix: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((parameters[0] @ matrix @ parameters[1]).sin().sum(), parameters)


@pytest.mark.parametrize("lr", [1e-3, 0.3])
def test_it_takes_torchs_steps_and_goes_on_from_its_state(lr: float) -> None:
    mine, matrix = problem(1)
    theirs, _ = problem(1)
    ours, torchs = Adam(mine), torch.optim.Adam(theirs, lr=lr)
    for index in range(20):
        if index == 10:
            state, ours = ours.state_dict(), Adam(mine)
            ours.load_state_dict(state)
        ours.step(gradients(mine, matrix), lr)
        for parameter, gradient in zip(theirs, gradients(theirs, matrix), strict=True):
            parameter.grad = gradient
        torchs.step()
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_the_first_step_s_length_is_the_rate() -> None:
    parameters, _ = problem(2)
    before = [p.detach().clone() for p in parameters]
    Adam(parameters).step([torch.ones_like(p) for p in parameters], 0.1)
    for parameter, old in zip(parameters, before, strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.1)
