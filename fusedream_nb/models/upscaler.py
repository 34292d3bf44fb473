"""Four times the pixels: a small network of ours for the stickers, Real-ESRGAN for real pictures."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .files import described_by, load_strictly, read_config, read_tensors
from .weights import entry

if TYPE_CHECKING:
    from . import Models

FACTOR = 4
REAL_ESRGAN = "realesrgan-x4plus"


def bicubic(image: Tensor) -> Tensor:
    """Enlarge images [n, 3, h, w] to [n, 3, 4h, 4w] by bicubic interpolation, which may overshoot [-1, 1]."""
    return F.interpolate(image, scale_factor=FACTOR, mode="bicubic", align_corners=False)


class _Residual(nn.Module):
    """x + f(x), two convolutions without a norm (EDSR, Lim et al., 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.change = nn.Sequential(first, nn.ReLU(inplace=True), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


class ResidualCNN(nn.Module):
    """Bicubic enlargement plus residual blocks and a pixel shuffle (ESPCN, Shi et al., 2016).

    The last convolution starts at zero, so a fresh network *is* bicubic enlargement.
    """

    def __init__(self, width: int = 32, blocks: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(_Residual(width) for _ in range(blocks)))
        self.last = nn.Conv2d(width, 3 * FACTOR**2, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge images [n, 3, h, w] to [n, 3, 4h, 4w]."""
        x = self.first(image)
        return bicubic(image) + F.pixel_shuffle(self.last(x + self.blocks(x)), FACTOR)


class Upscaler:
    """The sticker world's own enlargement: images [n, 3, h, w] in [-1, 1] → [n, 3, 4h, 4w]."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device | str = "cpu") -> Self:
        """Load a network from its configuration and weights; FileNotFoundError, ValueError for wrong keys."""
        network = ResidualCNN(**read_config(folder / "config.json"))
        load_strictly(network, read_tensors(folder, ("model.safetensors",)), folder)
        return cls(network.to(device))

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Return the enlarged images; no gradient is kept."""
        return self.network(image.contiguous(memory_format=torch.channels_last)).clamp(-1, 1)


class RealESRGAN:
    """Real-ESRGAN (Wang et al., 2021) by ``spandrel``, a picture at a time: [n, 3, h, w] → [n, 3, 4h, 4w].

    Raises ImportError, saying what to do, without spandrel, and ValueError for another factor.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        spandrel = _spandrel()
        with described_by(path, "a network that spandrel knows"):
            self.network = spandrel.ModelLoader(device=device).load_from_file(path).eval()
        if self.network.scale != FACTOR:
            found = f"{path} enlarges {self.network.scale} times"
            raise ValueError(f"{found}; a network for {FACTOR} times is required.")

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Return the enlarged images in [-1, 1]; no gradient is kept."""
        unit = (image.clamp(-1, 1) + 1) / 2
        return torch.cat([self.network(one) for one in unit.split(1)]).float().clamp(0, 1) * 2 - 1


def _spandrel() -> Any:  # noqa: ANN401  an optional module
    try:
        return import_module("spandrel")
    except ImportError as error:
        raise ImportError(
            "Real-ESRGAN is loaded by spandrel, which is not installed: python -m pip install spandrel, "
            f"and put RealESRGAN_x4plus.pth into {entry(REAL_ESRGAN).folder}."
        ) from error


def load_upscaler(models: Models) -> Upscaler | RealESRGAN:
    """Return what enlarges a world's pictures four times: the stickers' own network, else Real-ESRGAN.

    Raises ImportError without spandrel and FileNotFoundError without its weights, saying what to do.
    """
    if models.world:
        return Upscaler.from_folder(entry("stickers").require() / "upscaler", models.device)
    _spandrel()
    return RealESRGAN(entry(REAL_ESRGAN).require() / "RealESRGAN_x4plus.pth", models.device)
