"""Training of the upscaler on the renderer's pictures of the same scenes at 64 and at 256 pixels.

The mean absolute difference on crops. What the network reads is blurred a little, each crop by a width of its
own and some not at all: a generator's pictures are softer than the renderer's.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from fusedream_nb.models.upscaler import FACTOR, ResidualCNN, bicubic

from . import nouns as world
from .networks import SIZE
from .scenes import Scenes, sample_scenes
from .training import Run, ema_update
from .world import render

SEED = 707
UPSCALER_CONFIG: dict[str, int] = {"width": 32, "blocks": 4}  # arguments of ResidualCNN
CROP = 32  # pixels of what the network reads
SHARP = 0.4  # share of the crops that are not blurred
WIDEST = 1.0  # pixels: deviation of the widest blur


def two_sizes(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Draw scenes at 64 and at 256 pixels, a few at a time to keep the memory low."""
    return render(scenes, SIZE), render(scenes, FACTOR * SIZE, chunk=2)


def sharp_scenes(n: int, rng: torch.Generator) -> Scenes:
    """Draw n scenes of the encoders' world that hold more at 256 pixels than at 64.

    Fluent's sprites alone (Noto's are stored at 64 pixels), and no sketches: their lines are a pixel
    wide at any size, so a larger sketch is another picture.
    """
    scenes = sample_scenes(n, rng)
    sketch = scenes.style == list(world.STYLES).index("sketch")
    return replace(scenes, sprite=torch.zeros_like(scenes.sprite), style=torch.where(sketch, 0, scenes.style))


class _Pairs:
    """Pictures [n, 3, 64, 64] and [n, 3, 256, 256] of the same scenes as uint8, drawn ahead."""

    def __init__(self, n: int, rng: torch.Generator) -> None:
        self.rng = rng
        parts = [two_sizes(sharp_scenes(min(32, n - i), rng)) for i in range(0, n, 32)]
        self.small, self.large = (
            torch.cat([((part[size] + 1) * 127.5).round().byte() for part in parts]) for size in (0, 1)
        )

    def crops(self, n: int, side: int) -> tuple[Tensor, Tensor]:
        """Pick n crops of ``side`` pixels and the same places at four times that, in [-1, 1]."""
        rows = torch.randint(len(self.small), (n,), generator=self.rng).tolist()
        places = torch.randint(SIZE - side + 1, (n, 2), generator=self.rng).tolist()
        small = [
            self.small[row, :, y : y + side, x : x + side] for row, (y, x) in zip(rows, places, strict=True)
        ]
        large = [
            self.large[row, :, FACTOR * y : FACTOR * (y + side), FACTOR * x : FACTOR * (x + side)]
            for row, (y, x) in zip(rows, places, strict=True)
        ]
        return torch.stack(small).float() / 127.5 - 1, torch.stack(large).float() / 127.5 - 1


def blur(image: Tensor, width: Tensor) -> Tensor:
    """Blur images [n, c, h, w] by Gaussians of deviations ``width`` [n] in pixels; 0 changes nothing."""
    reach = 3
    apart = torch.arange(-reach, reach + 1).to(image)
    kernel = torch.exp(-(apart**2) / (2 * width[:, None].to(image) ** 2 + 1e-6))
    kernel = kernel / kernel.sum(1, keepdim=True)
    n, c, h, w = image.shape
    flat = F.pad(image, [reach] * 4, mode="replicate").view(1, n * c, h + 2 * reach, w + 2 * reach)
    kernel = kernel.repeat_interleave(c, 0)[:, None]
    down = F.conv2d(flat, kernel[..., None], groups=n * c)
    return F.conv2d(down, kernel[:, :, None], groups=n * c).view(n, c, h, w)


def soften(image: Tensor, rng: torch.Generator) -> Tensor:
    """Blur most of the images, each by a width of its own."""
    n = len(image)
    width = WIDEST * torch.rand(n, generator=rng) * (torch.rand(n, generator=rng) >= SHARP)
    return blur(image, width)


def train_upscaler(folder: Path, minutes: float, device: str, pool: int, batch: int = 8) -> dict[str, Tensor]:
    """Train the upscaler; return the weights that :class:`ResidualCNN` loads."""
    rng = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    fresh: nn.Module = ResidualCNN(**UPSCALER_CONFIG)
    model = fresh.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    steps = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98))
    data = _Pairs(pool, rng)
    run = Run(folder, minutes, {"model": model, "average": average, "steps": steps})
    rng.manual_seed(SEED + 1000 * run.step)
    examples = data.crops(8, SIZE)
    going = True
    while going:
        small, large = (part.to(device) for part in data.crops(batch, CROP))
        small = soften(small, rng).contiguous(memory_format=torch.channels_last)
        for group in steps.param_groups:
            group["lr"] = run.rate(2e-3)
        loss = (model(small) - large).abs().mean()
        steps.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.step()
        ema_update(average, model, min(0.998, (run.step + 1) / (run.step + 20)))
        if run.step % 200 == 0:
            _show(average, *examples, folder / "samples.png")
        plain = (bicubic(small) - large).abs().mean()
        going = run.tick(difference=100 * loss.item(), bicubic=100 * plain.item())
    _show(average, *examples, folder / "samples.png")
    return average.state_dict()


@torch.no_grad()
def _show(model: nn.Module, small: Tensor, large: Tensor, target: Path) -> None:
    """Save bicubic enlargements, above the network's, above the renderer's own pictures."""
    device = next(model.parameters()).device
    rows = torch.cat([bicubic(small), model(small.to(device)).cpu(), large])
    torchvision.utils.save_image((rows / 2 + 0.5).clamp(0, 1), target, nrow=len(small))
