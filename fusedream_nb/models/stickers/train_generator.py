"""Training of the generator: first taught, then adversarially.

The world draws a picture from a latent by a known law (``scenes_from_latent``), so the encoder of
the variational start is exact and needs no training: the decoder is taught the picture of each z
directly. A projection discriminator then judges prior samples, with the taught loss kept beside it
so that no class and no place is lost. Last, the batch-norm statistics are measured for every
truncation on the package's grid.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import lpips
import torch
import torch.nn.functional as F
import torchvision
from pytorch_pretrained_biggan.model import BigGAN, BigGANBatchNorm
from torch import Tensor, nn

from .adversarial import balance, opposed
from .networks import (
    GENERATOR_CONFIG,
    SIZE,
    BatchStatistics,
    Discriminator,
    as_the_package_has_it,
    trainable_generator,
)
from .nouns import NOUNS
from .scenes import LATENT_DIM, scenes_from_latent
from .training import Run, ema_update
from .world import render

SEED = 404
# Shares of the time: first at 16 pixels, then at 32, then whole; what is coarse is learnt where it is cheap.
GROWTH = ((0.08, 16), (0.5, 32), (1.0, SIZE))
PERCEIVED = 0.55  # share of the time before the perceptual distance joins
TAUGHT = 0.8  # share of the time before the discriminator joins
WATCH = 4  # every so many steps the batch norms' excess counts, and so many times
ADVERSARIAL = 0.6  # the discriminator's pull at the pictures, as a share of that of what is taught


def draw_latents(n: int, truncation: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw latents z [n, 64], clamped normals times the truncation, and classes [n]."""
    z = torch.randn(n, LATENT_DIM, generator=rng).clamp(-2, 2) * truncation
    return z, torch.randint(len(NOUNS), (n,), generator=rng)


class _Pool:
    """Latents and their pictures, drawn ahead in blocks of one truncation each."""

    def __init__(self, blocks: int, batch: int, rng: torch.Generator) -> None:
        self.batch, self.rng = batch, rng
        self.z = torch.empty(blocks, batch, LATENT_DIM)
        self.y = torch.empty(blocks, batch, dtype=torch.long)
        self.truncation = torch.ones(blocks)
        self.image = torch.empty(blocks, batch, 3, SIZE, SIZE, dtype=torch.uint8)
        for block in range(blocks):
            self.draw(block)

    def draw(self, block: int) -> None:
        """Draw one block anew; three in five have truncation 1, the others one in [0.3, 1]."""
        u = torch.rand(2, generator=self.rng)
        truncation = 1.0 if u[0] < 0.6 else 0.3 + 0.7 * float(u[1])
        z, y = draw_latents(self.batch, truncation, self.rng)
        self.z[block], self.y[block], self.truncation[block] = z, y, truncation
        self.image[block] = ((render(scenes_from_latent(z, y), SIZE) + 1) * 127.5).round().byte()

    def take(self, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return one random block: z, classes, pictures in [-1, 1]."""
        i = int(torch.randint(len(self.z), (), generator=self.rng))
        image = self.image[i].to(device).float() / 127.5 - 1
        return self.z[i].to(device), self.y[i].to(device), image


def taught_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Return the mean absolute difference at every scale down to 8 pixels, plus that of the finest edges."""
    loss = (fake - real).abs().mean()
    loss = loss + (fake.diff(dim=2) - real.diff(dim=2)).abs().mean()
    loss = loss + (fake.diff(dim=3) - real.diff(dim=3)).abs().mean()
    while fake.shape[-1] > 8:
        fake, real = F.avg_pool2d(fake, 2), F.avg_pool2d(real, 2)
        loss = loss + (fake - real).abs().mean()
    return loss


def _seen(judge: nn.Module, y: Tensor, image: Tensor) -> Tensor:
    """Return the discriminator's logits for pictures whose classes are y, or y again and again."""
    logits: Tensor = judge(image, y.repeat(len(image) // len(y)))
    return logits


class GrowingHeads(nn.Module):
    """Colours for the generator's features at 16 and 32 pixels, thrown away when it has grown."""

    def __init__(self, model: BigGAN) -> None:
        super().__init__()
        width, side = model.config.channel_width, 4
        self.ends: dict[int, int] = {}  # side → number of layers
        self.heads = nn.ModuleDict()
        for i, (up, _, out) in enumerate(model.config.layers):
            side *= 2 if up else 1
            if side in (16, 32):
                norm = nn.BatchNorm2d(out * width, track_running_stats=False)
                head = nn.Sequential(norm, nn.ReLU(), nn.Conv2d(out * width, 3, 3, padding=1), nn.Tanh())
                self.heads[str(side)], self.ends[side] = head, i + 1

    def forward(self, model: BigGAN, z: Tensor, y: Tensor, side: int) -> Tensor:
        """Return the pictures [n, 3, side, side] in [-1, 1] of latents z and classes y [n]."""
        condition = torch.cat([z, model.embeddings.weight.T[y]], 1)
        if side == SIZE:
            return model.generator(condition, 1.0)
        h = model.generator.gen_z(condition).view(len(z), 4, 4, -1).permute(0, 3, 1, 2)
        h = h.contiguous(memory_format=torch.channels_last)
        for layer in model.generator.layers[: self.ends[side]]:
            h = layer(h, condition, 1.0)
        return self.heads[str(side)](h)


def trunk_distance(weights: Path, device: str) -> nn.Module:
    """Return LPIPS on the sticker trunk, without linear heads."""
    module = lpips.LPIPS(net="squeeze", lpips=False, pnet_rand=True, pretrained=False, verbose=False)
    features = torchvision.models.squeezenet1_1().features
    features.load_state_dict(torch.load(weights, weights_only=True))
    flat = [layer for part in range(1, 8) for layer in getattr(module.net, f"slice{part}")]
    for layer, trained in zip(flat, features, strict=True):
        layer.load_state_dict(trained.state_dict())
    return module.eval().requires_grad_(False).to(device)


def train_generator(
    folder: Path, minutes: float, device: str, pool: int, batch: int = 32, grid: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Train the sticker generator; return the weights that the package's BigGAN class loads.

    ``grid`` names the rows of the table of truncations to measure (default: all).
    """
    torch.manual_seed(SEED)
    rng = torch.Generator().manual_seed(SEED)
    model = trainable_generator().to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    judge = Discriminator().to(device, memory_format=torch.channels_last)
    norms = [m for m in model.modules() if isinstance(m, BatchStatistics)]
    growing = GrowingHeads(model).to(device)
    model_steps = torch.optim.Adam([*model.parameters(), *growing.parameters()], betas=(0.5, 0.98))
    judge_steps = torch.optim.Adam(judge.parameters(), lr=4e-4, betas=(0.5, 0.98))
    state = {
        "model": model,
        "average": average,
        "growing": growing,
        "judge": judge,
        "model_steps": model_steps,
        "judge_steps": judge_steps,
    }
    run = Run(folder, minutes, state)
    rng.manual_seed(SEED + run.step)
    data = _Pool(pool // batch, batch, rng)
    distance = None
    shown = draw_latents(96, 1.0, torch.Generator().manual_seed(1))
    going = True
    while going:
        z, y, real = data.take(device)
        for group in model_steps.param_groups:
            group["lr"] = run.rate(2e-3)
        side = next(size for share, size in GROWTH if run.share <= share)
        real = F.avg_pool2d(real, SIZE // side)
        for norm in norms:
            norm.watched = run.step % WATCH == 0
        fake = growing(model, z, y, side)
        loss = taught = taught_loss(fake, real)
        excess = [WATCH * norm.excess for norm in norms if norm.excess is not None]
        numbers = {"taught": taught.item()}
        trunk = folder.parent / "trunk" / "weights.pt"
        if distance is None and run.share > PERCEIVED and trunk.exists():
            distance = trunk_distance(trunk, device)
        if distance is not None:
            perceived = distance(fake, real).mean()
            loss = loss + 0.5 * perceived
            numbers["perceived"] = perceived.item()
        pull = torch.autograd.grad(loss, fake)[0]
        if run.share >= TAUGHT:
            seen = partial(_seen, judge, y)
            push, numbers["hinge"] = opposed(seen, judge_steps, real, fake, rng)
            weight = ADVERSARIAL * min(1.0, (run.share - TAUGHT) / 0.05) * balance(pull, push)
            pull = pull + weight * push
            numbers["weight"] = weight.item()
        model_steps.zero_grad(set_to_none=True)
        torch.autograd.backward([*excess, fake], [*[None] * len(excess), pull])
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        model_steps.step()
        ema_update(average, model, min(0.998, (run.step + 1) / (run.step + 20)))
        if run.step % 4 == 0:
            data.draw(int(torch.randint(len(data.z), (), generator=rng)))
        if run.step % 200 == 0:
            _show(average, shown, folder / "samples.png", device)
        going = run.tick(**numbers)
    _show(average, shown, folder / "samples.png", device)
    return with_statistics(average, device, grid=grid)


@torch.no_grad()
def _show(model: BigGAN, latents: tuple[Tensor, Tensor], target: Path, device: str) -> None:
    """Save a grid of samples above the pictures that the world draws from the same latents."""
    z, y = latents
    image = model.generator(torch.cat([z.to(device), model.embeddings.weight.T[y.to(device)]], 1), 1.0)
    both = torch.cat([image.cpu(), render(scenes_from_latent(z, y), SIZE)]) / 2 + 0.5
    torchvision.utils.save_image(both, target, nrow=16)


@torch.no_grad()
def with_statistics(
    model: BigGAN, device: str, samples: int = 384, grid: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Return a state dict with batch-norm statistics measured for each row of the truncations' grid."""
    rng = torch.Generator().manual_seed(SEED + 1)
    filled = as_the_package_has_it(model)
    norms = {name: m for name, m in model.named_modules() if isinstance(m, BigGANBatchNorm)}
    row = 0

    def measure(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            variance, mean = torch.var_mean(arguments[0].float(), (0, 2, 3), correction=0)
            filled[f"{name}.running_means"][row] = mean.cpu()
            filled[f"{name}.running_vars"][row] = variance.cpu()

        return hook

    handles = [m.register_forward_pre_hook(measure(name)) for name, m in norms.items()]
    model.eval()
    rows = GENERATOR_CONFIG["n_stats"]
    for row in grid or range(rows):  # noqa: B007
        z, y = draw_latents(samples, row / (rows - 1), rng)
        model.generator(torch.cat([z.to(device), model.embeddings.weight.T[y.to(device)]], 1), 1.0)
    for handle in handles:
        handle.remove()
    return filled
