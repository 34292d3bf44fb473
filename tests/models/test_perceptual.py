"""LPIPS on the sticker trunk behaves as a distance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fusedream_nb.models import Models
from fusedream_nb.models.files import read_file, write_tensors
from fusedream_nb.models.perceptual import Perceptual
from fusedream_nb.models.weights import STICKERS


def test_zero_for_equal_pictures_and_symmetric(models: Models, pictures: torch.Tensor) -> None:
    a, b = pictures, pictures.flip(0)
    assert models.perceptual(a, a).abs().max() < 1e-6
    torch.testing.assert_close(models.perceptual(a, b), models.perceptual(b, a))
    assert models.perceptual(a, b).min() > 0


def test_grows_with_the_distortion(models: Models, pictures: torch.Tensor, rng: torch.Generator) -> None:
    noise = torch.randn(pictures.shape, generator=rng)
    distances = [models.perceptual(pictures, pictures + s * noise).mean() for s in (0.05, 0.1, 0.2, 0.4)]
    assert distances == sorted(distances)


def test_the_gradient_points_back(models: Models, pictures: torch.Tensor, rng: torch.Generator) -> None:
    off = (pictures + 0.1 * torch.randn(pictures.shape, generator=rng)).requires_grad_()
    before = models.perceptual(off, pictures).sum()
    (gradient,) = torch.autograd.grad(before, off)
    after = models.perceptual(off - 1e-3 * gradient / gradient.norm() * off.norm(), pictures).sum()
    assert after < before


@pytest.mark.parametrize("change", [{"heads.3": None}, {"heads.9": torch.ones(8)}])
def test_heads_are_all_there_or_none_is_taken(tmp_path: Path, change: dict) -> None:
    tensors = read_file(STICKERS / "lpips" / "model.safetensors") | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    write_tensors(kept, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="are not those of this model"):
        Perceptual.from_path(tmp_path)
