"""Training of the two VQGANs: one on sticker scenes, one on painted ones.

The mean absolute difference, the trunk's distance and the codebook's two losses count from the first step; a
discriminator of patches joins late, pulling at the pictures in proportion to them (VQGAN, Eq. 7). Codes that
nothing uses begin anew at vectors of the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from fusedream_nb.models.vqgan import VQGAN, look_up, nearest, straight_through

from . import nouns as world
from .adversarial import balance, opposed
from .networks import VQGAN_CONFIG, PatchDiscriminator
from .scenes import Scenes, sample_scenes
from .train_encoders import as_bytes
from .train_generator import trunk_distance
from .training import Run, ema_update

SEEDS = {"vqgan": 505, "vqgan-painted": 606}
PERCEIVED = 0.1  # weight of the perceptual distance, about as large at first as the other with it
COMMITMENT = 0.25  # of the encoder to its codes, beside the codes' own way to it (VQ-VAE, Eq. 3)
PATIENCE = 40  # steps without use before a code begins anew
REVIVED = 0.8  # share of the time before the last code begins anew, so that the average can settle
ADVERSARIAL = 0.4  # the discriminator's pull at the pictures, as a share of that of the other losses
JOINED = 0.5  # share of the time before the discriminator joins


def painted_scenes(n: int, rng: torch.Generator) -> Scenes:
    """Draw n scenes of the encoders' world, none of them a photo: all other styles, as likely each."""
    scenes = sample_scenes(n, rng)
    return replace(scenes, style=torch.randint(1, len(world.STYLES), (n,), generator=rng))


LAWS: dict[str, Callable[[int, torch.Generator], Scenes]] = {
    "vqgan": sample_scenes,
    "vqgan-painted": painted_scenes,
}


class _Pictures:
    """Pictures [n, 3, 64, 64] as uint8 of a law of scenes, drawn ahead and renewed a few at a time."""

    def __init__(self, n: int, name: str, rng: torch.Generator) -> None:
        self.law, self.rng, self._next = LAWS[name], rng, 0
        self.bytes = torch.cat([self._draw(min(1024, n - i)) for i in range(0, n, 1024)])

    def _draw(self, n: int) -> Tensor:
        return as_bytes(self.law(n, self.rng))

    def renew(self, n: int) -> None:
        """Put n fresh pictures in the place of the oldest ones."""
        rows = torch.arange(self._next, self._next + n) % len(self.bytes)
        self._next = int(rows[-1]) + 1
        self.bytes[rows] = self._draw(n)

    def pick(self, n: int, device: str) -> Tensor:
        """Return n random pictures in [-1, 1]."""
        rows = torch.randint(len(self.bytes), (n,), generator=self.rng)
        image = self.bytes[rows].to(device).float() / 127.5 - 1
        return image.contiguous(memory_format=torch.channels_last)


class Ages(nn.Module):
    """Steps [codes] since each code was last used; all begin as old as can be."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.register_buffer("steps", torch.full((codes,), PATIENCE))

    @property
    def alive(self) -> Tensor:
        """Which codes [codes] were used of late."""
        return self.steps < PATIENCE

    @torch.no_grad()
    def revive(self, vectors: Tensor, codebooks: Sequence[Tensor], rng: torch.Generator) -> None:
        """Put random ones of vectors [n, dim] in the place of the old codes of codebooks [codes, dim]."""
        old = (~self.alive).nonzero()[:, 0]
        chosen = vectors[torch.randint(len(vectors), (len(old),), generator=rng).to(vectors.device)]
        for codes in codebooks:
            codes[old] = chosen
        self.steps[old] = 0

    def count(self, index: Tensor) -> None:
        """Age every code by a step, but for those at indices of any shape."""
        self.steps += 1
        self.steps[index.unique()] = 0


def codebook_loss(z: Tensor, codes: Tensor) -> Tensor:
    """Return ‖sg z - q‖² + β ‖z - sg q‖², means over grids z and their codes q, both [n, dim, h, w]."""
    return F.mse_loss(codes, z.detach()) + COMMITMENT * F.mse_loss(z, codes.detach())


def train_vqgan(
    name: str, folder: Path, minutes: float, device: str, pool: int, batch: int = 8
) -> dict[str, Tensor]:
    """Train "vqgan" or "vqgan-painted"; return the weights that diffusers' VQModel loads."""
    from diffusers import VQModel

    rng = torch.Generator().manual_seed(SEEDS[name])
    torch.manual_seed(SEEDS[name])
    fresh: nn.Module = VQModel(**VQGAN_CONFIG)
    model = fresh.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    shown = VQGAN(average)
    judge = PatchDiscriminator().to(device, memory_format=torch.channels_last)
    codes = model.quantize.embedding.weight
    ages = Ages(len(codes)).to(device)
    model_steps = torch.optim.Adam(model.parameters(), betas=(0.5, 0.98))
    judge_steps = torch.optim.Adam(judge.parameters(), lr=4e-4, betas=(0.5, 0.98))
    state = {
        "model": model,
        "average": average,
        "judge": judge,
        "ages": ages,
        "model_steps": model_steps,
        "judge_steps": judge_steps,
    }
    run = Run(folder, minutes, state)
    rng.manual_seed(SEEDS[name] + 1000 * run.step)
    data = _Pictures(pool, name, rng)
    trunk = folder.parent / "trunk" / "weights.pt"
    distance = trunk_distance(trunk, device) if trunk.exists() else None
    examples = data.pick(32, device)
    going = True
    while going:
        real = data.pick(batch, device)
        for group in model_steps.param_groups:
            group["lr"] = run.rate(1e-3)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            z = model.quant_conv(model.encoder(real))
        z = z.float()
        if run.share < REVIVED:
            vectors = z.detach().movedim(1, -1).flatten(0, 2)
            ages.revive(vectors, [codes.data, shown.codes], rng)
        index = nearest(z.detach(), codes.detach())
        ages.count(index)
        q = look_up(index, codes)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            fake = model.decoder(model.post_quant_conv(straight_through(q, z)))
        fake = fake.float()
        inner, seen = codebook_loss(z, q), (fake - real).abs().mean()
        numbers = {"difference": seen.item(), "codebook": inner.item()}
        if distance is not None:
            perceived = distance(fake, real).mean()
            seen = seen + PERCEIVED * perceived
            numbers["perceived"] = perceived.item()
        pull = torch.autograd.grad(seen, fake)[0]
        if run.share >= JOINED:
            push, numbers["hinge"] = opposed(judge, judge_steps, real, fake, rng)
            pull = pull + ADVERSARIAL * min(1.0, (run.share - JOINED) / 0.05) * balance(pull, push) * push
        model_steps.zero_grad(set_to_none=True)
        torch.autograd.backward([inner, fake], [None, pull])
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        model_steps.step()
        ema_update(average, model, min(0.998, (run.step + 1) / (run.step + 20)))
        data.renew(2)
        if run.step % 200 == 0:
            _show(shown, examples, folder / "samples.png")
        going = run.tick(**numbers, used=ages.alive.float().mean().item())
    _show(shown, examples, folder / "samples.png")
    return average.state_dict()


@torch.no_grad()
def _show(generator: VQGAN, image: Tensor, target: Path) -> None:
    """Save pictures above their reconstructions."""
    both = torch.cat([image, generator.decode(generator.encode(image))]).cpu() / 2 + 0.5
    torchvision.utils.save_image(both, target, nrow=16)
