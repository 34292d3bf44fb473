"""Training runs, for real but for seconds: they learn, they stop, they go on where they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fusedream_nb.models.biggan import BigGAN
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.stickers.scenes import held_out
from training.encoders import train_encoder
from training.generator import statistics, taught_loss, train_generator
from training.law import scenes_from_latent
from training.networks import SHAPE, Norm, TrainableBigGAN, exported
from training.pack import save_biggan
from training.perceptual import train_trunk
from training.run import Run, ema_update

CPU = torch.device("cpu")


def fit(run: Run, model: torch.nn.Linear, optimiser: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimiser.zero_grad()
        (model(torch.ones(1, 2)) - 3).square().sum().backward()
        optimiser.step()
        run.tick(1)


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
        ema_update(average, model, 1000, 0.9)
    torch.testing.assert_close(average.weight, model.weight)
    with torch.no_grad():
        model.weight.add_(1)
    ema_update(average, model, 1000, 0.75)
    torch.testing.assert_close(average.weight, model.weight - 0.75)


def test_the_taught_loss_is_zero_only_for_the_picture_itself() -> None:
    real = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert taught_loss(real, real) == 0
    # A constant offset counts once at each of four scales; it has no edges.
    torch.testing.assert_close(taught_loss(real + 0.1, real), torch.tensor(0.4))


def test_what_exceeds_the_bound_is_the_spikes_and_its_gradient_takes_them_down() -> None:
    """A batch norm of Gaussian features exceeds nothing; one pixel that outshines 4,095 does."""
    norm, condition = Norm(8, 4), torch.zeros(4, 4)
    norm.watched = True
    x = torch.randn(4, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    norm(x.requires_grad_(), condition)
    assert norm.excess == 0
    spiked = x.detach().clone()
    spiked[0, 0, 0, 0] = 100.0
    norm(spiked.requires_grad_(), condition)
    assert norm.excess is not None
    (slope,) = torch.autograd.grad(norm.excess, spiked)
    flat = spiked.detach()[:, 0]
    normal = (100 - flat.mean()) / (flat.var(correction=0) + 1e-4).sqrt()
    torch.testing.assert_close(norm.excess, (normal - norm.BOUND) ** 2 / x.numel(), rtol=1e-3, atol=0)
    assert slope[0, 0, 0, 0] == slope.max() > 0 and (slope[:, 1:] == 0).all()


def test_the_law_never_shows_what_is_held_out_and_dyes_one_in_six() -> None:
    rng = torch.Generator().manual_seed(0)
    z, y = torch.randn(20_000, 96, generator=rng), torch.randint(28, (20_000,), generator=rng)
    scenes = scenes_from_latent(z, y)
    # P(radius > 1.9) of two standard normals is exp(-1.9^2 / 2) = 0.164; the deviation here is 0.003.
    dyed = scenes.colour[:, 0] >= 0
    assert abs(dyed.float().mean() - 0.164) < 0.012
    shown = set(zip(*(t[dyed & ~held_out(scenes)].tolist() for t in (scenes.colour[:, 0], y)), strict=True))
    from fusedream_nb.models.stickers.scenes import GENERATOR_FORBIDDEN

    forbidden = {(c, n) for c, n in GENERATOR_FORBIDDEN.nonzero().tolist()}
    assert not shown & forbidden
    assert len(shown) == GENERATOR_FORBIDDEN.numel() - len(forbidden)  # and everything else is shown


@torch.no_grad()
def test_the_exported_generator_draws_what_the_trained_one_does(tmp_path: Path) -> None:
    """Small embeddings, statistics in a table, another layout of names: the same picture."""
    torch.manual_seed(0)
    model = TrainableBigGAN()
    model.attention.gain.fill_(0.3)
    model.last_norm.gain.normal_(0, 0.2)
    found = statistics(model, CPU, samples=16, grid=[48, 49])
    save_biggan(SHAPE, exported(model, found), folder=tmp_path)
    shipped = BigGAN.from_path(tmp_path)
    assert (shipped.size, shipped.z_dim) == (128, 96)
    assert 0.2 < shipped.embeddings.std() < 0.3  # small against N(0, I), as BigGAN's own are
    for name, norm in model.norms().items():
        norm.mean.copy_(found[name][0][49])
        norm.variance.copy_(found[name][1][49])
    z, y = torch.randn(3, 96, generator=torch.Generator().manual_seed(1)).clamp(-2, 2), torch.arange(3)
    drawn = shipped.decode(Latent(z, shipped.embeddings[y]))
    torch.testing.assert_close(drawn, model.eval()(z, model.embeddings[y]), atol=1e-4, rtol=0)


@pytest.mark.heavy
def test_every_part_trains_on_what_the_others_left(tmp_path: Path) -> None:
    """The trunk, the generator, the climbed CLIP and the judge, seconds each, on each other's weights."""
    torch.save(train_trunk(tmp_path / "trunk", 0.05, CPU, 16, 8), tmp_path / "trunk" / "weights.pt")
    weights = train_generator(tmp_path / "generator", 0.12, CPU, 16, 8, grid=[49])
    clip = train_encoder("clip", tmp_path / "clip", 0.1, CPU, 24, 24)
    judge = train_encoder("judge", tmp_path / "judge", 0.1, CPU, 24, 24)
    for tensors in (weights, clip, judge):
        assert all(value.isfinite().all() for value in tensors.values())
    logs = {name: (tmp_path / name / "log.jsonl").read_text() for name in ("generator", "clip", "judge")}
    rows = {name: json.loads(text.splitlines()[-1]) for name, text in logs.items()}
    assert {"taught", "perceived", "hinge"} <= rows["generator"].keys()  # the discriminator had joined
    assert all({"contrastive", "stained", "seen"} <= rows[name].keys() for name in ("clip", "judge"))
    for name in ("generator", "clip", "judge"):
        assert (tmp_path / name / "checkpoint.pt").exists()
