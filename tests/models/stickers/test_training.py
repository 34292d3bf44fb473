"""Training runs, for real but for seconds: they learn, they stop, they go on where they were."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from fusedream_nb.models.stickers.networks import BatchStatistics, trainable_generator
from fusedream_nb.models.stickers.train_generator import taught_loss, train_generator
from fusedream_nb.models.stickers.training import Run, ema_update


def fit(run: Run, model: torch.nn.Linear, optimiser: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimiser.zero_grad()
        (model(torch.ones(1, 2)) - 3).square().sum().backward()
        optimiser.step()
        run.tick()


def parts() -> tuple[torch.nn.Linear, torch.optim.Adam]:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    model, optimiser = parts()
    fit(Run(tmp_path / "whole", 1, {"m": model, "o": optimiser}), model, optimiser, 20)

    first, its = parts()
    run = Run(tmp_path / "broken", 1, {"m": first, "o": its})
    fit(run, first, its, 12)
    run.save()
    fit(run, first, its, 3)  # lost with the process
    second, its = parts()
    run = Run(tmp_path / "broken", 1, {"m": second, "o": its})
    assert run.step == 12
    fit(run, second, its, 8)
    torch.testing.assert_close(second.weight, model.weight, atol=0, rtol=0)


def test_the_average_of_a_constant_is_the_constant() -> None:
    model, _ = parts()
    average, _ = parts()
    for _ in range(5):
        ema_update(average, model, 0.9)
    torch.testing.assert_close(average.weight, model.weight)
    with torch.no_grad():
        model.weight.add_(1)
    ema_update(average, model, 0.75)
    torch.testing.assert_close(average.weight, model.weight - 0.75)


def test_the_taught_loss_is_zero_only_for_the_picture_itself() -> None:
    real = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert taught_loss(real, real) == 0
    # A constant offset counts once at each of four scales; it has no edges.
    torch.testing.assert_close(taught_loss(real + 0.1, real), torch.tensor(0.4))


def test_what_exceeds_the_bound_is_the_spikes_and_its_gradient_takes_them_down() -> None:
    """A batch norm of Gaussian features exceeds nothing; one pixel that outshines 4,095 is told off."""
    block = trainable_generator().generator.layers[0]
    norm = next(m for m in block.modules() if isinstance(m, BatchStatistics) and m.conditional)
    norm.watched = True
    condition = torch.zeros(4, norm.scale.in_features)
    x = torch.randn(4, norm.scale.out_features, 32, 32, generator=torch.Generator().manual_seed(0))
    norm(x.requires_grad_(), 1.0, condition)
    assert norm.excess == 0
    spiked = x.detach().clone()
    spiked[0, 0, 0, 0] = 100.0
    norm(spiked.requires_grad_(), 1.0, condition)
    assert norm.excess is not None
    (slope,) = torch.autograd.grad(norm.excess, spiked)
    flat = spiked.detach()[:, 0]
    normal = (100 - flat.mean()) / (flat.var(correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(norm.excess, (normal - norm.BOUND) ** 2 / x.numel(), rtol=1e-3, atol=0)
    assert slope[0, 0, 0, 0] == slope.max() > 0 and (slope[:, 1:] == 0).all()


def test_the_generator_trains_through_all_its_phases(tmp_path: Path) -> None:
    weights = train_generator(tmp_path, minutes=0.12, device="cpu", pool=24, batch=8, grid=[50])
    assert all(value.isfinite().all() for value in weights.values())
    assert (tmp_path / "checkpoint.pt").exists()
    assert (tmp_path / "samples.png").exists()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines() if line]
    assert {"taught", "hinge"} <= rows[-1].keys()  # the discriminator had joined
