"""Training of the upscaler on the renderer's pictures of the same scenes at 64 and at 256 pixels.

The mean absolute difference on crops. What the network reads is blurred a little, each crop by a width of its
own and some not at all: a generator's pictures are softer than the renderer's. A third of the pictures are
the generator's samples, held against the renderer's picture of the same latent.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from fusedream_nb.models.stickers.scenes import sharp_scenes
from fusedream_nb.models.stickers.world import render
from fusedream_nb.models.upscaler import FACTOR, ResidualCNN, bicubic
from fusedream_nb.models.weights import STICKERS

from .data import blur
from .generator import begun, draw, latents
from .networks import READ, UPSCALER_CONFIG
from .run import Run, Snapshot, ema_update

SEED = 1808
CROP = 32  # pixels of what the network reads
SHARP = 0.4  # share of the crops that are not blurred
WIDEST = 1.0  # pixels: deviation of the widest blur
GENERATED = 1 / 3  # share of the pictures that the generator drew


class _Pairs:
    """Pictures [n, 3, 64, 64] and [n, 3, 256, 256] of the same scenes as uint8, drawn ahead."""

    def __init__(self, n: int, generator: nn.Module, rng: torch.Generator, device: torch.device) -> None:
        self.rng, self.generator, self.device = rng, generator, device
        parts = [self._draw(min(16, n - i)) for i in range(0, n, 16)]
        self.small, self.large = (torch.cat([part[size] for part in parts]) for size in (0, 1))
        self._next = 0

    @torch.no_grad()
    def _draw(self, n: int) -> tuple[Tensor, Tensor]:
        if float(torch.rand((), generator=self.rng)) < GENERATED:
            z, y, scenes = latents(n, 1.0, self.rng)
            table = self.generator.embeddings.weight.T
            small = draw(self.generator, z.to(self.device), table[y.to(self.device)])
        else:
            scenes = sharp_scenes(n, self.rng)
            small = render(scenes, READ, device=self.device)
        large = render(scenes, FACTOR * READ, chunk=4, device=self.device)
        small, large = (((image + 1) * 127.5).round().byte() for image in (small, large))
        return small, large

    def renew(self, n: int) -> None:
        """Put n fresh pairs in the place of the oldest ones."""
        rows = ((torch.arange(n) + self._next) % len(self.small)).to(self.device)
        self._next = (self._next + n) % len(self.small)
        self.small[rows], self.large[rows] = self._draw(n)

    def crops(self, n: int, side: int) -> tuple[Tensor, Tensor]:
        """Pick n crops of ``side`` pixels and the same places at four times that, in [-1, 1]."""
        row = torch.randint(len(self.small), (n, 1, 1), generator=self.rng).to(self.device)
        corner = torch.randint(READ - side + 1, (n, 2, 1), generator=self.rng).to(self.device)
        found = []
        for table, factor in ((self.small, 1), (self.large, FACTOR)):
            axis = torch.arange(side * factor, device=self.device)
            y, x = (factor * corner[:, i] + axis for i in (0, 1))  # [n, side]
            image = table.movedim(1, -1)[row, y[:, :, None], x[:, None]].movedim(-1, 1)
            found.append(image.float() / 127.5 - 1)
        return found[0], found[1]


def soften(image: Tensor, rng: torch.Generator) -> Tensor:
    """Blur most of the images, each by a width of its own."""
    u = torch.rand(2, len(image), generator=rng)
    return blur(image, (WIDEST * u[0] * (u[1] >= SHARP)).to(image.device))


def train_upscaler(
    folder: Path, minutes: float, device: torch.device, pool: int, batch: int
) -> dict[str, Tensor]:
    """Train the upscaler; return the weights that :class:`ResidualCNN` loads."""
    rng = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    model: nn.Module = ResidualCNN(**UPSCALER_CONFIG).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    steps = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98))
    generator = Snapshot(folder.parent / "generator", begun(STICKERS / "generator"), device, share=0.6)
    generator.refresh()
    data = _Pairs(pool, generator.module, rng, device)
    run = Run(folder, minutes, {"model": model, "average": average, "steps": steps})
    rng.manual_seed(SEED + 1000 * run.step)
    examples = data.crops(8, READ)
    going = True
    while going:
        small, large = data.crops(batch, CROP)
        small = soften(small, rng).contiguous(memory_format=torch.channels_last)
        run.set_rate(steps, 2e-3)
        loss = (model(small) - large).abs().mean()
        steps.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.step()
        ema_update(average, model, run.step)
        if run.step % 20 == 0:
            generator.refresh()
            data.renew(4)
        if run.step % 500 == 0:
            _show(average, *examples, folder / "samples.png")
        going = run.tick(
            batch, difference=100 * loss.detach(), bicubic=100 * (bicubic(small) - large).abs().mean()
        )
    _show(average, *examples, folder / "samples.png")
    return average.state_dict()


@torch.no_grad()
def _show(model: nn.Module, small: Tensor, large: Tensor, target: Path) -> None:
    """Save bicubic enlargements, above the network's, above the renderer's own pictures."""
    rows = torch.cat([bicubic(small), model(small), large]).cpu()
    torchvision.utils.save_image((rows / 2 + 0.5).clamp(0, 1), target, nrow=len(small))
