"""The generator's training: it begins with the shipped pictures, learns, and is read by the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fusedream_nb.models.biggan import BigGANDeep
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.stickers.scenes import GENERATOR_FORBIDDEN, held_out
from fusedream_nb.models.weights import STICKERS
from training.generator import (
    BatchNorm,
    begun,
    detail_loss,
    draw,
    exported,
    latents,
    lost,
    taught_loss,
    train_generator,
)

CPU = torch.device("cpu")


def test_what_is_exported_draws_what_was_trained(tmp_path: Path) -> None:
    model = begun(STICKERS / "generator").requires_grad_(False)
    z, y, _ = latents(256, 1.0, torch.Generator().manual_seed(3))
    y = model.embeddings.weight.T[y]
    shutil.copy(STICKERS / "generator" / "config.json", tmp_path)
    save_file(exported(model, samples=256, rows=[50]), tmp_path / "model.safetensors")
    theirs = BigGANDeep.from_path(tmp_path).decode(Latent(z[:64], y[:64]))
    assert (theirs - draw(model, z, y)[:64]).abs().mean() < 0.03  # the statistics are those of other samples


def test_no_latent_of_a_held_out_pair_is_drawn_and_some_are_dyed() -> None:
    _, _, scenes = latents(500, 1.0, torch.Generator().manual_seed(0), dyed=0.35)
    assert len(scenes) == 500
    assert not held_out(scenes).any()
    assert (scenes.colour[:, 0] >= 0).float().mean() >= 0.35


def test_every_pair_that_is_not_held_out_is_drawn() -> None:
    _, y, scenes = latents(20_000, 1.0, torch.Generator().manual_seed(0), dyed=0.35)
    dyed = scenes.colour[:, 0] >= 0
    shown = set(zip(scenes.colour[dyed, 0].tolist(), y[dyed].tolist(), strict=True))
    assert len(shown) == GENERATOR_FORBIDDEN.numel() - int(GENERATOR_FORBIDDEN.sum())


def test_the_taught_loss_is_zero_only_for_the_picture_itself() -> None:
    real = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert taught_loss(real, real) == 0
    # A constant offset counts once at each of four scales; it has no edges.
    torch.testing.assert_close(taught_loss(real + 0.1, real), torch.tensor(0.4))


def test_detail_is_what_halving_takes_away() -> None:
    """Wherever the squares of a chessboard begin it is all detail, and what is flat has none."""
    chessboard = 0.5 * ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1).expand(2, 3, 16, 16)
    flat, shifted = torch.ones_like(chessboard), chessboard.roll(1, 2)
    torch.testing.assert_close(lost(chessboard), chessboard)
    torch.testing.assert_close(lost(flat), torch.zeros_like(flat))
    torch.testing.assert_close(detail_loss(chessboard, shifted), torch.tensor(0.0))
    torch.testing.assert_close(
        detail_loss(chessboard, flat), torch.tensor(0.5 + 10 * 0.5**2), atol=0.05, rtol=0
    )


def test_what_exceeds_the_bound_is_the_spikes_and_its_gradient_takes_them_down() -> None:
    """A batch norm of Gaussian features exceeds nothing; one pixel that outshines 4,095 does."""
    norm = next(module for module in begun(STICKERS / "generator").modules() if isinstance(module, BatchNorm))
    channels, width = norm.offset.weight.shape
    condition = torch.zeros(4, width)
    norm.watched = True
    x = torch.randn(4, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    norm(x.requires_grad_(), 1.0, condition)
    assert norm.excess == 0
    spiked = x.detach().clone()
    spiked[0, 0, 0, 0] = 100.0
    norm(spiked.requires_grad_(), 1.0, condition)
    assert norm.excess is not None
    (slope,) = torch.autograd.grad(norm.excess, spiked)
    flat = spiked.detach()[:, 0]
    normal = (100 - flat.mean()) / (flat.var(correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(norm.excess, (normal - 8) ** 2 / x.numel(), rtol=1e-3, atol=0)
    assert slope[0, 0, 0, 0] == slope.max() > 0 and (slope[:, 1:] == 0).all()


@pytest.mark.heavy
def test_a_generator_trains_on_and_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.generator.exported", lambda model: dict(model.named_parameters()))
    for minutes in (0.05, 0.1):
        after = train_generator(tmp_path, minutes, CPU, pool=32, batch=8)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert {"taught", "perceived", "detail", "hinge"} <= rows[-1].keys()  # the discriminator had joined
    before = dict(begun(STICKERS / "generator").named_parameters())
    moved = [not torch.equal(after[name], value) for name, value in before.items()]
    assert sum(moved) > 0.9 * len(moved)
