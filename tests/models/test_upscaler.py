"""The upscaler: bicubic before it has learnt anything, its training, its files, and Real-ESRGAN's seat."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from fusedream_nb.models import Models, upscaler
from fusedream_nb.models.upscaler import RealESRGAN, ResidualCNN, Upscaler, bicubic, load_upscaler


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (5, 9), (1, 1)])
def test_a_fresh_network_is_bicubic_at_any_size(rng: torch.Generator, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size, generator=rng) * 2 - 1
    large = ResidualCNN()(image)
    assert large.shape == (2, 3, 4 * size[0], 4 * size[1])
    assert torch.equal(large, F.interpolate(image, scale_factor=4, mode="bicubic"))
    assert torch.equal(Upscaler(ResidualCNN())(image), bicubic(image).clamp(-1, 1))


def test_bicubic_keeps_constants_and_mirrors_with_its_picture(rng: torch.Generator) -> None:
    flat = torch.full((1, 3, 6, 6), 0.3)
    torch.testing.assert_close(bicubic(flat), torch.full((1, 3, 24, 24), 0.3))
    image = torch.rand(1, 3, 5, 7, generator=rng)
    torch.testing.assert_close(bicubic(image.flip(3)), bicubic(image).flip(3))
    torch.testing.assert_close(bicubic(image.mT), bicubic(image).mT)


def test_what_it_reads_reaches_ten_pixels_and_no_further() -> None:
    """Ten convolutions of three pixels, so a changed pixel is seen within ten around it."""
    torch.manual_seed(0)
    network = ResidualCNN()
    torch.nn.init.normal_(network.last.weight)
    image = torch.zeros(1, 3, 41, 41)
    changed = image.clone()
    changed[..., 20, 20] = 1
    with torch.no_grad():
        seen = (network(changed) - network(image)).abs().amax((0, 1, 2)) > 0
    columns = seen.nonzero()[:, 0]
    assert (columns.min(), columns.max()) == (4 * 10, 4 * 31 - 1)


def test_a_folder_without_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no config.json; put it there"):
        Upscaler.from_folder(tmp_path)


def test_real_esrgan_says_what_to_install_and_where_its_file_belongs(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = replace(models, world="")
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(
        ImportError, match=f"pip install spandrel, and put RealESRGAN_x4plus.pth .*{tmp_path}"
    ):
        load_upscaler(real)
    monkeypatch.setitem(sys.modules, "spandrel", SimpleNamespace())
    with pytest.raises(FileNotFoundError, match=r"put RealESRGAN_x4plus.pth \(67,040,989 bytes"):
        load_upscaler(real)


class Nearest:
    """A network as spandrel gives it, on pictures in [0, 1]."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def eval(self) -> Nearest:
        return self

    def __call__(self, unit: torch.Tensor) -> torch.Tensor:
        assert len(unit) == 1 and unit.min() >= 0 and unit.max() <= 1
        return unit.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3) + 0.25


def test_real_esrgan_reads_and_writes_our_range(
    rng: torch.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = 4

    def loader(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(load_from_file=lambda path: Nearest(scale))

    monkeypatch.setattr(upscaler, "import_module", lambda name: SimpleNamespace(ModelLoader=loader))
    image = torch.rand(3, 3, 4, 5, generator=rng) * 2 - 1
    large = RealESRGAN(tmp_path / "x.pth", torch.device("cpu"))(image)
    assert large.shape == (3, 3, 16, 20)
    torch.testing.assert_close(large[:, :, ::4, ::4], (image + 0.5).clamp(-1, 1))
    scale = 2
    with pytest.raises(ValueError, match=r"enlarges 2 times; a network for 4 times is required"):
        RealESRGAN(tmp_path / "x.pth", torch.device("cpu"))
