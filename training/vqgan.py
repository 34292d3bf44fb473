"""Training of the two VQGANs, one on sticker scenes, one on painted ones, from the weights that ship.

The mean absolute and the mean square difference, the perceptual distance and the codebook's two losses count
from the first step; a discriminator of patches joins late, pulling at the pictures in proportion to them
(VQGAN, Eq. 7). Codes that nothing uses begin anew at vectors of the batch. Pictures have 64 and 128 pixels in
turn, so that a canvas of either size is drawn as well.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from diffusers import VQModel
from safetensors.torch import load_file
from torch import Tensor, nn

from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.scenes import Scenes, sample_scenes
from fusedream_nb.models.stickers.world import render
from fusedream_nb.models.vqgan import look_up, nearest, straight_through
from fusedream_nb.models.weights import STICKERS

from .adversarial import balance, opposed
from .networks import SIZE, PatchDiscriminator
from .perceptual import perceived
from .run import Run, ema_update

SEEDS = {"vqgan": 1606, "vqgan-painted": 1707}
RATES = {"cpu": 4e-4, "cuda": 6e-4}  # Adam's, for batches of 8 and of 64
SQUARED = 2.0  # weight of the mean square, beside the mean absolute difference
PERCEIVED = 0.75  # weight of the perceptual distance
COMMITMENT = 0.25  # of the encoder to its codes, beside the codes' own way to it (VQ-VAE, Eq. 3)
PATIENCE = 40  # steps without use before a code begins anew
REVIVED = 0.8  # share of the time before the last code begins anew, so that the average can settle
ADVERSARIAL = 0.25  # the discriminator's pull at the pictures, as a share of that of the other losses
RENEWED = 8  # steps after which two batches of pictures are drawn anew
JOINED = 0.6  # share of the time before the discriminator joins


def painted_scenes(n: int, rng: torch.Generator) -> Scenes:
    """Draw n scenes of the encoders' world, none of them a photo: all other styles, as likely each."""
    style = torch.randint(1, len(world.STYLES), (n,), generator=rng)
    return replace(sample_scenes(n, rng), style=style)


LAWS: dict[str, Callable[[int, torch.Generator], Scenes]] = {
    "vqgan": sample_scenes,
    "vqgan-painted": painted_scenes,
}


def begin(name: str) -> VQModel:
    """Return a VQGAN as diffusers' network, with the weights that ship."""
    model = VQModel.from_config(json.loads((STICKERS / name / "config.json").read_text()))
    tensors = load_file(STICKERS / name / "diffusion_pytorch_model.safetensors")
    model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=True)
    return model


class _Pictures:
    """Pictures [n, 3, 128, 128] as uint8 of a law of scenes, drawn ahead and renewed a few at a time."""

    def __init__(self, n: int, name: str, rng: torch.Generator, device: torch.device) -> None:
        self.law, self.rng, self.device, self._next = LAWS[name], rng, device, 0
        self.bytes = torch.cat([self._draw(min(128, n - i)) for i in range(0, n, 128)])

    def _draw(self, n: int) -> Tensor:
        return ((render(self.law(n, self.rng), SIZE, device=self.device) + 1) * 127.5).round().byte()

    def renew(self, n: int) -> None:
        """Put n fresh pictures in the place of the oldest ones."""
        rows = ((torch.arange(n) + self._next) % len(self.bytes)).to(self.device)
        self._next = (self._next + n) % len(self.bytes)
        self.bytes[rows] = self._draw(n)

    def pick(self, n: int) -> Tensor:
        """Return n random pictures in [-1, 1]."""
        rows = torch.randint(len(self.bytes), (n,), generator=self.rng).to(self.device)
        image = self.bytes[rows].float() / 127.5 - 1
        return image.contiguous(memory_format=torch.channels_last)


class Ages(nn.Module):
    """Steps [codes] since each code was last used."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(codes, dtype=torch.long))

    @property
    def alive(self) -> Tensor:
        """Which codes [codes] were used of late."""
        return self.steps < PATIENCE

    @torch.no_grad()
    def revive(self, vectors: Tensor, codebooks: Sequence[Tensor], rng: torch.Generator) -> None:
        """Put random ones of vectors [n, dim] in the place of the old codes of codebooks [codes, dim]."""
        old = ~self.alive
        chosen = torch.randint(len(vectors), (len(old),), generator=rng).to(vectors.device)
        for codes in codebooks:
            codes.copy_(torch.where(old[:, None], vectors[chosen].to(codes), codes))
        self.steps.masked_fill_(old, 0)

    def count(self, index: Tensor) -> None:
        """Age every code by a step, but for those at indices of any shape."""
        self.steps += 1
        self.steps[index.flatten()] = 0


def codebook_loss(z: Tensor, codes: Tensor) -> Tensor:
    """Return ‖sg z - q‖² + β ‖z - sg q‖², means over grids z and their codes q, both [n, dim, h, w]."""
    return F.mse_loss(codes, z.detach()) + COMMITMENT * F.mse_loss(z, codes.detach())


def train_vqgan(
    name: str,
    folder: Path,
    minutes: float,
    device: torch.device,
    pool: int,
    batch: int,
) -> dict[str, Tensor]:
    """Train "vqgan" or "vqgan-painted"; return the weights that diffusers' VQModel loads."""
    rng = torch.Generator().manual_seed(SEEDS[name])
    torch.manual_seed(SEEDS[name])
    model: nn.Module = begin(name).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    judge = PatchDiscriminator().to(device, memory_format=torch.channels_last)
    codes, shown_codes = model.quantize.embedding.weight, average.quantize.embedding.weight
    ages = Ages(len(codes)).to(device)
    model_steps = torch.optim.Adam(model.parameters(), betas=(0.5, 0.98))
    judge_steps = torch.optim.Adam(judge.parameters(), lr=3e-4, betas=(0.5, 0.98))
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
    data = _Pictures(pool, name, rng, device)
    distance = perceived(folder.parent, device)
    examples = data.pick(32)
    going = True
    while going:
        real = data.pick(batch)
        if run.step % 2:
            real = F.avg_pool2d(real, 2)
        run.set_rate(model_steps, RATES[device.type])
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            z = model.quant_conv(model.encoder(real))
        z = z.float()
        if run.share < REVIVED:
            ages.revive(z.detach().movedim(1, -1).flatten(0, 2), [codes.data, shown_codes.data], rng)
        index = nearest(z.detach(), codes.detach())
        ages.count(index)
        q = look_up(index, codes)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            drawn = model.decoder(model.post_quant_conv(straight_through(q, z)))
        fake = drawn.detach().float().requires_grad_()
        inner, seen = codebook_loss(z, q), (fake - real).abs().mean()
        numbers = {"difference": seen.detach(), "codebook": inner.detach()}
        seen = seen + SQUARED * F.mse_loss(fake, real)
        some = slice(0, max(4, batch // 2))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            apart = distance(fake[some], real[some])
        seen = seen + PERCEIVED * apart
        numbers["perceived"] = apart.detach()
        pull = torch.autograd.grad(seen, fake)[0]
        if run.share >= JOINED:
            push, numbers["hinge"] = opposed(judge, judge_steps, real, fake, rng)
            pull = pull + ADVERSARIAL * min(1.0, (run.share - JOINED) / 0.05) * balance(pull, push) * push
        model_steps.zero_grad(set_to_none=True)
        torch.autograd.backward([inner, drawn], [None, pull.to(drawn.dtype)])
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        model_steps.step()
        ema_update(average, model, run.step)
        if run.step % RENEWED == 0:
            data.renew(2 * batch)
        if run.step % 500 == 0:
            _show(average, examples, folder / "samples.png")
        going = run.tick(batch, **numbers, used=ages.alive.float().mean())
    _show(average, examples, folder / "samples.png")
    return average.state_dict()


@torch.no_grad()
def _show(model: nn.Module, image: Tensor, target: Path) -> None:
    """Save pictures above their reconstructions."""
    z, codes = model.quant_conv(model.encoder(image)), model.quantize.embedding.weight
    again = model.decoder(model.post_quant_conv(look_up(nearest(z, codes), codes)))
    torchvision.utils.save_image((torch.cat([image, again]).cpu() / 2 + 0.5).clamp(0, 1), target, nrow=16)
