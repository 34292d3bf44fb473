"""Training of the generator: first taught, then adversarially.

The world draws a picture from a latent by a known law (``scenes_from_latent``), so the encoder of
the variational start is exact and needs no training: the decoder is taught the picture of each z
directly. Pairs that are held out are never drawn: what the network makes of their latents is its own.
Noise on the class embedding, and on each block's alone, makes the neighbourhood that climbs visit show
objects too. A projection discriminator then judges prior samples, with the taught loss kept beside it so that
no class and no place is lost. Last, the batch-norm statistics are measured for every truncation on the grid.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from fusedream_nb.models.biggan_files import STEP
from fusedream_nb.models.stickers.nouns import NOUNS
from fusedream_nb.models.stickers.scenes import Scenes, held_out
from fusedream_nb.models.stickers.world import render

from .adversarial import balance, opposed
from .law import LATENT_DIM, scenes_from_latent
from .networks import SIZE, Discriminator, Norm, TrainableBigGAN, exported
from .perceptual import perceived
from .run import Run, ema_update

SEED = 1505
# Shares of the time: small pictures first; what is coarse is learnt where it is cheap.
GROWTH = ((0.06, 16), (0.2, 32), (0.45, 64), (1.0, SIZE))
PERCEIVED = 0.3  # share of the time before the perceptual distance joins
TAUGHT = 0.6  # share of the time before the discriminator joins
WATCH = 4  # every so many steps the batch norms' excess counts, and so many times
ADVERSARIAL = 0.6  # the discriminator's pull at the pictures, as a share of that of what is taught
NOISE, APART = 0.3, 0.15  # standard deviations of the noise on y: on all blocks alike, and on each alone


def draw_latents(n: int, truncation: float, rng: torch.Generator) -> tuple[Tensor, Tensor, Scenes]:
    """Draw z [n, 96], clamped normals times the truncation, classes [n] and their scenes, none held out."""
    m = n + n // 4 + 8
    z = torch.randn(m, LATENT_DIM, generator=rng).clamp(-2, 2) * truncation
    y = torch.randint(len(NOUNS), (m,), generator=rng)
    scenes = scenes_from_latent(z, y)
    kept = (~held_out(scenes)).nonzero()[:n, 0]
    if len(kept) < n:
        return draw_latents(n, truncation, rng)
    return z[kept], y[kept], scenes[kept]


class _Pool:
    """Latents and their pictures, drawn ahead in blocks of one truncation each."""

    def __init__(self, blocks: int, batch: int, rng: torch.Generator, device: torch.device) -> None:
        self.batch, self.rng = batch, rng
        self.z = torch.empty(blocks, batch, LATENT_DIM, device=device)
        self.y = torch.empty(blocks, batch, dtype=torch.long, device=device)
        self.image = torch.empty(blocks, batch, 3, SIZE, SIZE, dtype=torch.uint8, device=device)
        for block in range(blocks):
            self.draw(block)

    def draw(self, block: int) -> None:
        """Draw one block anew; three in five have truncation 1, the others one in [0.3, 1]."""
        u = torch.rand(2).tolist()
        z, y, scenes = draw_latents(self.batch, 1.0 if u[0] < 0.6 else 0.3 + 0.7 * u[1], self.rng)
        self.z[block], self.y[block] = z, y
        self.image[block] = ((render(scenes, SIZE, device=self.z.device) + 1) * 127.5).round().byte()

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return one random block: z, classes, pictures in [-1, 1]."""
        i = int(torch.randint(len(self.z), ()))
        image = self.image[i].float() / 127.5 - 1
        return self.z[i], self.y[i], image.contiguous(memory_format=torch.channels_last)


def taught_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Return the mean absolute difference at every scale down to 8 pixels, plus that of the finest edges."""
    loss = (fake - real).abs().mean()
    loss = loss + (fake.diff(dim=2) - real.diff(dim=2)).abs().mean()
    loss = loss + (fake.diff(dim=3) - real.diff(dim=3)).abs().mean()
    while fake.shape[-1] > 8:
        fake, real = F.avg_pool2d(fake, 2), F.avg_pool2d(real, 2)
        loss = loss + (fake - real).abs().mean()
    return loss


def near(model: TrainableBigGAN, y: Tensor, rng: torch.Generator) -> Tensor:
    """Return embeddings [n, blocks, 64] of classes y [n] with the noise of training."""
    base = model.embeddings[y][:, None]
    noise = torch.randn(len(y), 1, base.shape[-1], generator=rng)
    apart = torch.randn(len(y), len(model.blocks), base.shape[-1], generator=rng)
    return base + (NOISE * noise + APART * apart).to(base.device)


def train_generator(
    folder: Path,
    minutes: float,
    device: torch.device,
    pool: int,
    batch: int,
    start: Path | None = None,
    grid: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """Train the sticker generator; return the tensors that ``biggan_files`` reads.

    ``grid`` names the rows of the table of truncations to measure (default: all).
    """
    torch.manual_seed(SEED)
    rng = torch.Generator().manual_seed(SEED)
    model = TrainableBigGAN().to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    judge = Discriminator().to(device, memory_format=torch.channels_last)
    model_steps = torch.optim.Adam(model.parameters(), betas=(0.5, 0.98))
    judge_steps = torch.optim.Adam(judge.parameters(), lr=3e-4, betas=(0.5, 0.98))
    state = {
        "model": model,
        "average": average,
        "judge": judge,
        "model_steps": model_steps,
        "judge_steps": judge_steps,
    }
    run = Run(folder, minutes, state, start=start)
    torch.manual_seed(SEED + run.step)
    rng.manual_seed(SEED + run.step)
    blocks = _Pool(max(2, pool // batch), batch, rng, device)
    distance = None
    shown = draw_latents(96, 1.0, torch.Generator().manual_seed(1))
    norms = list(model.norms().values())
    going = True
    while going:
        z, y, real = blocks.take()
        run.set_rate(model_steps, 2e-3)
        side = next(size for share, size in GROWTH if run.share <= share)
        real = F.avg_pool2d(real, SIZE // side)
        for norm in norms:
            norm.watched = run.step % WATCH == 0
        fake = model(z, near(model, y, rng), side)  # in float32: in bfloat16 it stops learning at 16 pixels
        excess = [WATCH * norm.excess for norm in norms if norm.excess is not None]
        seen = fake.detach().requires_grad_()
        loss = taught = taught_loss(seen, real)
        numbers = {"taught": taught.detach()}
        if distance is None and run.share > PERCEIVED:
            distance = perceived(folder.parent, device)
        if distance is not None:
            some = slice(0, max(8, batch // 2))
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                apart = distance(seen[some], real[some])
            loss = loss + 0.4 * apart
            numbers["perceived"] = apart.detach()
        pull = torch.autograd.grad(loss, seen)[0]
        if run.share >= TAUGHT:
            push, numbers["hinge"] = opposed(partial(_seen, judge, y), judge_steps, real, seen, rng)
            numbers["weight"] = balance(pull, push)
            pull = pull + ADVERSARIAL * min(1.0, (run.share - TAUGHT) / 0.05) * numbers["weight"] * push
        model_steps.zero_grad(set_to_none=True)
        torch.autograd.backward([*excess, fake], [*[None] * len(excess), pull])
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        model_steps.step()
        ema_update(average, model, run.step)
        if run.step % 2 == 0:
            blocks.draw(int(torch.randint(len(blocks.z), ())))
        if run.step % 500 == 0:
            _show(average, shown, folder / "samples.png", side)
        going = run.tick(batch, **numbers)
    _show(average, shown, folder / "samples.png", SIZE)
    return exported(average, statistics(average, device, grid=grid))


def _seen(judge: nn.Module, y: Tensor, image: Tensor) -> Tensor:
    """Return the discriminator's logits for pictures whose classes are y, or y again and again."""
    logits: Tensor = judge(image, y.repeat(len(image) // len(y)))
    return logits


@torch.no_grad()
def _show(model: TrainableBigGAN, shown: tuple[Tensor, Tensor, Scenes], target: Path, side: int) -> None:
    """Save a grid of samples above the pictures that the world draws from the same latents."""
    z, y, scenes = shown
    device = model.embeddings.device
    image = model.eval()(z.to(device), model.embeddings[y.to(device)], side).float().cpu()
    both = torch.cat([image, F.avg_pool2d(render(scenes, SIZE), SIZE // side)]) / 2 + 0.5
    torchvision.utils.save_image(both, target, nrow=16)


@torch.no_grad()
def statistics(
    model: TrainableBigGAN, device: torch.device, samples: int = 512, grid: Sequence[int] | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each norm's means and variances [truncations, channels], measured on samples of each."""
    rng = torch.Generator().manual_seed(SEED + 1)
    rows = round(1 / STEP)
    found = {
        name: (torch.zeros(rows, len(norm.mean)), torch.ones(rows, len(norm.mean)))
        for name, norm in model.norms().items()
    }

    def measure(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            variance, mean = torch.var_mean(arguments[0].float(), (0, 2, 3), correction=0)
            found[name][0][row], found[name][1][row] = mean.cpu(), variance.cpu()

        return hook

    handles = [norm.register_forward_pre_hook(measure(name)) for name, norm in model.norms().items()]
    model.train()  # each norm passes on what the statistics just measured make of its input
    for module in model.modules():
        if isinstance(module, Norm):
            module.watched = False
    for row in grid or range(rows):  # noqa: B007
        z, y, _ = draw_latents(samples, STEP * (row + 1), rng)
        model(z.to(device), model.embeddings[y.to(device)])
    for handle in handles:
        handle.remove()
    model.eval()
    return found
