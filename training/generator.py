"""Training of the generator, a BigGAN-deep for 64 pixels, from the weights that ship.

The world draws a picture from a latent by a known law (:mod:`fusedream_nb.models.stickers.scenes`), so the
encoder of a variational start is exact and needs no training: the decoder is taught the picture of each
latent. Pairs that are held out are never drawn: what the network makes of their latents is its own. Noise on
the class embeddings makes the neighbourhood that climbs visit show objects too. Then a projection
discriminator joins. Spectral norms are folded into the weights that it begins with.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torchvision
from pytorch_pretrained_biggan.config import BigGANConfig
from pytorch_pretrained_biggan.model import BigGAN, BigGANBatchNorm
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from fusedream_nb.models.stickers.nouns import NOUNS
from fusedream_nb.models.stickers.scenes import LATENT_DIM, Scenes, held_out, scenes_from_latent
from fusedream_nb.models.stickers.world import render
from fusedream_nb.models.weights import STICKERS

from .adversarial import balance, opposed
from .networks import READ, Discriminator
from .perceptual import perceived
from .run import Run, ema_update

SEED = 2404
RATES = {"cpu": 2.5e-4, "cuda": 4e-4}  # Adam's, for batches of 32 and of 128
JUDGE_RATE = 4e-4  # the discriminator's
NOISE, APART = 0.3, 0.1  # standard deviations of the noise on y: on all layers alike, and on each alone
DYED = 0.35  # share of the latents with a dyed object; the prior's is a sixth
PERCEIVED, FINE = 6.0, 40.0  # weights beside the taught loss: of the perceptual distance, of detail
JOINS = 0.3  # share of the time before the discriminator trains
PUSH = 0.8  # its pull at the pictures, as a share of that of what is taught
WATCH = 4  # every so many steps the batch norms' excess counts, and so many times


class BatchNorm(BigGANBatchNorm):
    """The package's batch norm, normalised by the batch itself, as it must be in training.

    While it is ``watched``, a forward leaves in ``excess`` the mean square by which normalised features
    exceed 8: unless it is held down, single pixels come to carry a channel's whole variance.
    """

    watched = False
    excess: Tensor | None = None

    def forward(self, x: Tensor, truncation: float, condition_vector: Tensor | None = None) -> Tensor:
        """Return x [n, channels, h, w] normalised over its batch, scaled and shifted by the condition."""
        if not self.conditional:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        normal = F.batch_norm(x, None, None, training=True, eps=self.eps)
        self.excess = F.relu(normal.abs() - 8).square().mean() if self.watched else None
        weight = 1 + self.scale(condition_vector)[:, :, None, None]
        return torch.addcmul(self.offset(condition_vector)[:, :, None, None], normal, weight)


def begun(folder: Path) -> BigGAN:
    """Return a shipped generator with its spectral norms folded and its norms on the batch's statistics."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("class_names")
    model = BigGAN(BigGANConfig.from_dict(config))
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({name: value.float() for name, value in tensors.items()})
    for module in model.eval().modules():
        if hasattr(module, "weight_orig"):
            nn.utils.remove_spectral_norm(module)
            module._load_state_dict_pre_hooks.clear()  # PyTorch leaves one behind, which misses weight_orig
        if isinstance(module, BigGANBatchNorm):
            module.__class__ = BatchNorm
    return model.to(memory_format=torch.channels_last)


def draw(model: BigGAN, z: Tensor, y: Tensor) -> Tensor:
    """Return the pictures [n, 3, 64, 64] of z [n, 64] and embeddings y [n, layers, 64] or [n, 64]."""
    network = model.generator
    y = y if y.ndim == 3 else y[:, None].expand(-1, 1 + len(network.layers), -1)
    first, *conditions = (torch.cat([z, part], 1) for part in y.unbind(1))
    x = network.gen_z(first).view(len(z), 4, 4, -1).permute(0, 3, 1, 2)
    x = x.contiguous(memory_format=torch.channels_last)
    for layer, condition in zip(network.layers, conditions, strict=True):
        x = layer(x, condition, 1.0)
    return network.conv_to_rgb(torch.relu(network.bn(x, 1.0)))[:, :3].tanh()


def latents(
    n: int, truncation: float, rng: torch.Generator, dyed: float = 0.0
) -> tuple[Tensor, Tensor, Scenes]:
    """Draw z [n, 64], classes [n] and their scenes, none held out, and at least so large a share dyed."""
    m = 4 * n + 16
    z = torch.randn(m, LATENT_DIM, generator=rng).clamp(-2, 2) * truncation
    y = torch.randint(len(NOUNS), (m,), generator=rng)
    scenes = scenes_from_latent(z, y)
    kept = (~held_out(scenes)).nonzero()[:, 0]
    coloured = scenes.colour[kept, 0] >= 0
    first = kept[coloured][: round(dyed * n)]
    rest = kept[:n] if not len(first) else kept[~torch.isin(kept, first)][: n - len(first)]
    kept = torch.cat([first, rest])[:n]
    return z[kept], y[kept], scenes[kept]


class Pool:
    """Latents and their pictures, drawn ahead in blocks of one truncation each."""

    def __init__(self, blocks: int, batch: int, rng: torch.Generator, device: torch.device) -> None:
        self.batch, self.rng, self.device = batch, rng, device
        self.blocks: list[tuple[Tensor, Tensor, Tensor]] = [self.drawn(0.0) for _ in range(blocks)]

    def drawn(self, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a block; three in five have truncation 1, the others one in [0.3, 1]."""
        u = torch.rand(2, generator=self.rng).tolist()
        dyed = DYED if share < 0.9 else 0.0
        z, y, scenes = latents(self.batch, 1.0 if u[0] < 0.6 else 0.3 + 0.7 * u[1], self.rng, dyed)
        image = (render(scenes, READ, device=self.device) + 1) * 127.5
        return z.to(self.device), y.to(self.device), image.round().byte()

    def take(self, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return a random block (z, classes, pictures in [-1, 1]), and draw a fourth of the times another."""
        i = int(torch.randint(len(self.blocks), (), generator=self.rng))
        if torch.rand((), generator=self.rng) < 0.25:
            self.blocks[i] = self.drawn(share)
        z, y, image = self.blocks[i]
        return z, y, (image.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def taught_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Return the mean absolute difference at every scale down to 8 pixels, plus that of the finest edges."""
    loss = (fake - real).abs().mean()
    loss = loss + (fake.diff(dim=2) - real.diff(dim=2)).abs().mean()
    loss = loss + (fake.diff(dim=3) - real.diff(dim=3)).abs().mean()
    while fake.shape[-1] > 8:
        fake, real = F.avg_pool2d(fake, 2), F.avg_pool2d(real, 2)
        loss = loss + (fake - real).abs().mean()
    return loss


def lost(image: Tensor) -> Tensor:
    """Return what halving pictures [n, 3, h, w] takes away: waves of 2 to 4 pixels."""
    return image - F.interpolate(F.avg_pool2d(image, 2), scale_factor=2.0, mode="nearest")


def detail_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Return how far apart two batches are in how much fine detail each cell of 4 pixels has.

    That is the root mean square of what halving takes away. A mean absolute difference of the pictures is
    lowest where detail is left out whose place is uncertain; this is lowest where as much is there. The
    square is there for the cells that have most: their median alone would be too low.
    """
    cells = [(F.avg_pool2d(lost(image).square(), 4) + 1e-5).sqrt() for image in (fake, real)]
    apart = cells[0] - cells[1]
    return apart.abs().mean() + 10 * apart.square().mean()


def train_generator(
    folder: Path, minutes: float, device: torch.device, pool: int = 4096, batch: int = 32
) -> dict[str, Tensor]:
    """Train on, resumably, and return the tensors that ship; samples and a log are in the folder."""
    torch.manual_seed(SEED)
    rng = torch.Generator().manual_seed(SEED)
    model = begun(STICKERS / "generator").to(device)
    average = copy.deepcopy(model).requires_grad_(False)
    judge = Discriminator().to(device, memory_format=torch.channels_last)
    model_steps = torch.optim.Adam(model.parameters(), betas=(0.5, 0.98))
    judge_steps = torch.optim.Adam(judge.parameters(), lr=JUDGE_RATE, betas=(0.5, 0.98))
    parts = {"model": model, "average": average, "judge": judge}
    run = Run(folder, minutes, {**parts, "model_steps": model_steps, "judge_steps": judge_steps})
    rng.manual_seed(SEED + run.step)
    blocks = Pool(max(2, pool // batch), batch, rng, device)
    distance = perceived(folder.parent, device)
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    shown, going = latents(96, 1.0, torch.Generator().manual_seed(1)), True
    while going:
        z, y, real = blocks.take(run.share)
        run.set_rate(model_steps, RATES[device.type])
        for norm in norms:
            norm.watched = run.step % WATCH == 0
        layers = 1 + len(model.generator.layers)
        noise = NOISE * torch.randn(batch, 1, LATENT_DIM, generator=rng)
        noise = noise + APART * torch.randn(batch, layers, LATENT_DIM, generator=rng)
        fake = draw(model, z, model.embeddings.weight.T[y][:, None] + noise.to(device))
        excess = [WATCH * norm.excess for norm in norms if norm.excess is not None]
        seen = fake.detach().requires_grad_()
        taught, apart = taught_loss(seen, real), distance(seen, real)
        fine = detail_loss(seen, real)
        sharp = (lost(seen.detach()).square().mean() / lost(real).square().mean()).sqrt()
        numbers = {"taught": taught, "perceived": apart, "detail": fine, "sharp": sharp}
        pull = torch.autograd.grad(taught + PERCEIVED * apart + FINE * fine, seen)[0]
        if run.share >= JOINS:
            push, numbers["hinge"] = opposed(partial(_seen, judge, y), judge_steps, real, seen, rng)
            tells = (2 - numbers["hinge"]).clamp(0, 1)  # whoever sees no difference does not push
            pull = pull + PUSH * tells * balance(pull, push) * push
        model_steps.zero_grad(set_to_none=True)
        torch.autograd.backward([*excess, fake], [*[None] * len(excess), pull])
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        model_steps.step()
        ema_update(average, model, run.step)
        if run.step % 200 == 0:
            show(average, shown, folder / "samples.png")
        going = run.tick(batch, **numbers)
    show(average, shown, folder / "samples.png")
    return exported(average)


def _seen(judge: nn.Module, y: Tensor, image: Tensor) -> Tensor:
    """Return the discriminator's logits for pictures whose classes are y, or y again and again."""
    logits: Tensor = judge(image, y.repeat(len(image) // len(y)))
    return logits


@torch.no_grad()
def show(model: BigGAN, shown: tuple[Tensor, Tensor, Scenes], target: Path) -> None:
    """Save a grid of samples above the pictures that the world draws from the same latents."""
    z, y, scenes = shown
    table = model.embeddings.weight.T
    image = draw(model, z.to(table.device), table[y.to(table.device)]).cpu()
    both = torch.cat([image, render(scenes, READ)]) / 2 + 0.5
    torchvision.utils.save_image(both, target, nrow=16)


@torch.no_grad()
def exported(model: BigGAN, samples: int = 384, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Return tensors as the package's class stores them, with batch-norm statistics of every truncation.

    ``rows`` names those of the table of truncations to measure (default: all). Spectral norm divides by
    σ = uᵀWv with u and v stored; they are chosen such that σ = 1.
    """
    rng = torch.Generator().manual_seed(SEED + 1)
    device = model.embeddings.weight.device
    filled = BigGAN(model.config).to(device).state_dict()
    for name, value in model.state_dict().items():
        if f"{name}_orig" in filled:
            matrix, u = value.flatten(1), filled[f"{name}_u"]
            v = F.normalize(matrix.T @ u, dim=0)
            filled[f"{name}_v"] = v / torch.dot(u, matrix @ v)
            name = f"{name}_orig"
        filled[name] = value.clone()
    for row in rows or range(model.config.n_stats):
        z, y, _ = latents(samples, row / (model.config.n_stats - 1), rng)

        def measure(name: str, row: int, module: nn.Module, given: tuple[Tensor, ...]) -> None:
            variance, mean = torch.var_mean(given[0], (0, 2, 3), correction=0)
            filled[f"{name}.running_means"][row], filled[f"{name}.running_vars"][row] = mean, variance

        hooks = [
            module.register_forward_pre_hook(partial(measure, name, row))
            for name, module in model.named_modules()
            if isinstance(module, BatchNorm)
        ]
        draw(model, z.to(device), model.embeddings.weight.T[y.to(device)])
        for hook in hooks:
            hook.remove()
    return {name: value.half().contiguous().cpu() for name, value in filled.items()}
