"""Training of the generator: first taught, then adversarially.

The world draws a picture from a latent by a known law (``scenes_from_latent``), so the encoder of
the variational start is exact and needs no training: the decoder is taught the picture of each z
directly. A projection discriminator then judges prior samples, with the taught loss kept beside it
so that no class and no place is lost. Last, the batch-norm statistics are measured for every
truncation on the package's grid.
"""

from __future__ import annotations

import copy
from pathlib import Path

import lpips
import torch
import torch.nn.functional as F
import torchvision
from pytorch_pretrained_biggan.config import BigGANConfig
from pytorch_pretrained_biggan.model import BigGAN, BigGANBatchNorm
from torch import Tensor, nn

from .networks import GENERATOR_CONFIG, SIZE, Discriminator, trainable_generator
from .nouns import NOUNS
from .scenes import LATENT_DIM, scenes_from_latent
from .train_encoders import _perturb
from .training import Run, ema_update
from .world import render

SEED = 404
RGB_ROWS = [f"generator.conv_to_rgb.{part}" for part in ("bias", "weight_orig", "weight_u")]
TAUGHT = 0.6  # share of the time before the discriminator joins


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
    """Return the mean absolute difference at four scales, plus that of the finest edges."""
    loss = (fake - real).abs().mean()
    loss = loss + (fake.diff(dim=2) - real.diff(dim=2)).abs().mean()
    loss = loss + (fake.diff(dim=3) - real.diff(dim=3)).abs().mean()
    for _ in range(3):
        fake, real = F.avg_pool2d(fake, 2), F.avg_pool2d(real, 2)
        loss = loss + (fake - real).abs().mean()
    return loss


def _balance(taught: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """Return the weight at which both losses pull equally at the last layer (VQGAN, Eq. 7)."""
    a = torch.autograd.grad(taught, last, retain_graph=True)[0].norm()
    b = torch.autograd.grad(adversarial, last, retain_graph=True)[0].norm()
    return (a / (b + 1e-6)).clamp(max=100).detach()


def trunk_distance(weights: Path, device: str) -> nn.Module:
    """Return LPIPS on the sticker trunk, without linear heads."""
    module = lpips.LPIPS(net="squeeze", lpips=False, pnet_rand=True, pretrained=False, verbose=False)
    features = torchvision.models.squeezenet1_1().features
    features.load_state_dict(torch.load(weights, weights_only=True))
    flat = [layer for part in range(1, 8) for layer in getattr(module.net, f"slice{part}")]
    for layer, trained in zip(flat, features, strict=True):
        layer.load_state_dict(trained.state_dict())
    return module.eval().requires_grad_(False).to(device)


def train_generator(folder: Path, minutes: float, device: str, pool: int, batch: int = 32) -> dict[str, Tensor]:
    """Train the sticker generator; return the weights that the package's BigGAN class loads."""
    torch.manual_seed(SEED)
    rng = torch.Generator().manual_seed(SEED)
    model = trainable_generator().to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    judge = Discriminator().to(device, memory_format=torch.channels_last)
    model_steps = torch.optim.Adam(model.parameters(), betas=(0.5, 0.98))
    judge_steps = torch.optim.Adam(judge.parameters(), lr=2e-4, betas=(0.5, 0.98))
    state = {"model": model, "average": average, "judge": judge, "model_steps": model_steps, "judge_steps": judge_steps}
    run = Run(folder, minutes, state)
    rng.manual_seed(SEED + run.step)
    data = _Pool(pool // batch, batch, rng)
    distance = None
    shown = draw_latents(96, 1.0, torch.Generator().manual_seed(1))
    last = model.generator.conv_to_rgb.weight_orig
    going = True
    while going:
        z, y, real = data.take(device)
        for group in model_steps.param_groups:
            group["lr"] = run.rate(2e-3 if run.share < TAUGHT else 1e-3)
        fake = model.generator(torch.cat([z, model.embeddings.weight.T[y]], 1), 1.0)
        loss = taught = taught_loss(fake, real)
        numbers = {"taught": taught.item()}
        trunk = folder.parent / "trunk" / "weights.pt"
        if distance is None and run.step % 100 == 0 and trunk.exists():
            distance = trunk_distance(trunk, device)
        if distance is not None:
            perceived = distance(fake, real).mean()
            loss = loss + 0.5 * perceived
            numbers["perceived"] = perceived.item()
        if run.share >= TAUGHT:
            both = torch.cat([real, fake.detach()])
            logits = judge(_perturb(both, rng), torch.cat([y, y]))
            hinge = F.relu(1 - logits[:batch]).mean() + F.relu(1 + logits[batch:]).mean()
            judge_steps.zero_grad(set_to_none=True)
            hinge.backward()
            judge_steps.step()
            adversarial = -judge(_perturb(fake, rng), y).mean()
            weight = _balance(loss, adversarial, last)
            loss = loss + 0.7 * weight * adversarial
            numbers |= {"hinge": hinge.item(), "weight": weight.item()}
        model_steps.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        model_steps.step()
        ema_update(average, model, min(0.998, (run.step + 1) / (run.step + 20)))
        if run.step % 4 == 0:
            data.draw(int(torch.randint(len(data.z), (), generator=rng)))
        if run.step % 200 == 0:
            _show(average, shown, folder / "samples.png", device)
        going = run.tick(**numbers)
    _show(average, shown, folder / "samples.png", device)
    return with_statistics(average, device)


@torch.no_grad()
def _show(model: BigGAN, latents: tuple[Tensor, Tensor], target: Path, device: str) -> None:
    """Save a grid of samples above the pictures that the world draws from the same latents."""
    z, y = latents
    image = model.generator(torch.cat([z.to(device), model.embeddings.weight.T[y.to(device)]], 1), 1.0)
    both = torch.cat([image.cpu(), render(scenes_from_latent(z, y), SIZE)]) / 2 + 0.5
    torchvision.utils.save_image(both, target, nrow=16)


@torch.no_grad()
def with_statistics(model: BigGAN, device: str, samples: int = 384) -> dict[str, Tensor]:
    """Return a state dict with batch-norm statistics measured for each truncation of the grid."""
    rng = torch.Generator().manual_seed(SEED + 1)
    plain = BigGAN(BigGANConfig.from_dict(GENERATOR_CONFIG))
    rows = plain.generator.conv_to_rgb.weight.shape[0] - 3
    padded = {
        name: F.pad(value, [0] * (2 * value.ndim - 1) + [rows]) if name in RGB_ROWS else value
        for name, value in model.state_dict().items()
    }
    plain.load_state_dict(padded)
    norms = {name: m for name, m in model.named_modules() if isinstance(m, BigGANBatchNorm)}
    filled = dict(plain.named_modules())
    row = 0

    def measure(name: str):  # noqa: ANN202
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            variance, mean = torch.var_mean(arguments[0].float(), (0, 2, 3), correction=0)
            filled[name].running_means[row], filled[name].running_vars[row] = mean.cpu(), variance.cpu()

        return hook

    handles = [m.register_forward_pre_hook(measure(name)) for name, m in norms.items()]
    model.eval()
    rows = GENERATOR_CONFIG["n_stats"]
    for row in range(rows):  # noqa: B007
        z, y = draw_latents(samples, row / (rows - 1), rng)
        model.generator(torch.cat([z.to(device), model.embeddings.weight.T[y.to(device)]], 1), 1.0)
    for handle in handles:
        handle.remove()
    return plain.state_dict()
