"""Pictures that are climbed while an encoder trains, and shown to it as wrong answers.

An encoder that only ever saw faultless scenes takes any stain for something. So each training step also moves
a set of latents one step up AugCLIP (FuseDream, Eq. 3), in a space that is climbed later: VQGAN codes,
BigGAN latents far from any class, pyramids of pixels. What is climbed is the encoder itself, and others
beside it. The pictures are shown to it with the answer "nothing". As in an energy-based model (Xie et al.,
2016), what is climbed becomes harder to tell from what is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_nb.method import views
from fusedream_nb.models import load
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.stickers.scenes import LATENT_DIM
from fusedream_nb.models.vqgan import VQGAN, look_up, nearest, straight_through

from .data import COLOURS, NOUNS
from .networks import READ
from .run import Snapshot
from .vqgan import LAWS, begin

RATES = {"vqgan": 0.1, "generator": 0.05, "pyramid": 0.05}  # Adam's, drawn anew between half and twice
AGES = {"vqgan": 80, "generator": 12, "pyramid": 60}  # steps after which a climb begins again, at most
SIDES = (4, 8, 16, 32, 64)  # of the pyramid's grids
COPIES = 3  # augmented copies of each climbed picture

Start = Callable[[int, torch.Generator], Tensor]
Draw = Callable[[Tensor], Tensor]


@dataclass
class Chains:
    """Climbs of one space: latents [m, …], Adam's moments, ages, rates, and captions to climb for [m]."""

    start: Start
    draw: Draw
    m: int
    rate: float
    most: int
    rng: torch.Generator
    z: Tensor = field(init=False)
    target: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.z = self.start(self.m, self.rng)
        self.first, self.second = torch.zeros_like(self.z), torch.zeros_like(self.z)
        self.age = self._pick(self.most, self.m)
        self.limit = self._pick(self.most, self.m) + 1
        self.scale = torch.ones(self.m, device=self.z.device)
        self.target = self._pick(NOUNS * (1 + COLOURS), self.m)
        self._shown = self.z.new_zeros(0)

    def _pick(self, most: int, n: int) -> Tensor:
        return torch.randint(most, (n,), generator=self.rng, device=self.rng.device)

    def show(self) -> Tensor:
        """Return each picture and its copies [m (1 + COPIES), 3, 64, 64], remembering their graph."""
        self._leaf = self.z.detach().requires_grad_()
        image = self.draw(self._leaf).float()
        numbers = views.sample(self.m, COPIES, self.rng)
        plain = F.interpolate(image, (READ, READ), mode="bilinear", antialias=True)
        copies = views.augment(image, numbers, READ).unflatten(0, (self.m, COPIES))
        self._shown = torch.cat([plain[:, None], copies], 1).flatten(0, 1)
        return self._shown.detach()

    @torch.no_grad()
    def move(self, gradient: Tensor) -> None:
        """Take an Adam step along the gradient at what was shown; begin old climbs again."""
        with torch.enable_grad():
            (g,) = torch.autograd.grad(self._shown, self._leaf, gradient.to(self._shown))
        del self._shown, self._leaf
        g = torch.nan_to_num(g)
        shape = (-1, *[1] * (g.ndim - 1))
        self.age += 1
        self.first.lerp_(g, 0.1)
        self.second.lerp_(g.square(), 0.02)
        age = self.age.view(shape)
        first, second = self.first / (1 - 0.9**age), self.second / (1 - 0.98**age)
        self.z += self.rate * self.scale.view(shape) * first / (second.sqrt() + 1e-12)
        old = self.age >= self.limit
        fresh = self.start(self.m, self.rng)
        mask = old.view(shape)
        self.z = torch.where(mask, fresh, self.z)
        self.first, self.second = self.first.masked_fill(mask, 0), self.second.masked_fill(mask, 0)
        self.target = torch.where(old, self._pick(NOUNS * (1 + COLOURS), self.m), self.target)
        self.limit = torch.where(old, self._pick(self.most, self.m) + 1, self.limit)
        spread = torch.rand(self.m, generator=self.rng, device=self.rng.device)
        self.scale = torch.where(old, 0.5 * 4**spread, self.scale)
        self.age.masked_fill_(old, 0)


def pyramid() -> tuple[Start, Draw]:
    """Return the space of pictures that are sums of grids of all sizes (Fort and Whitaker, 2025)."""
    total = sum(3 * side**2 for side in SIDES)

    def start(n: int, rng: torch.Generator) -> Tensor:
        return 0.3 * torch.randn(n, total, generator=rng, device=rng.device)

    def draw(z: Tensor) -> Tensor:
        parts = z.split([3 * side**2 for side in SIDES], 1)
        grids = [part.unflatten(1, (3, side, side)) for part, side in zip(parts, SIDES, strict=True)]
        big = [F.interpolate(g, size=(READ, READ), mode="bilinear", align_corners=False) for g in grids]
        return torch.stack(big).sum(0).tanh()

    return start, draw


def far_off(device: torch.device) -> tuple[Start, Draw]:
    """Return the space of the shipped generator's latents, begun far out from any class."""
    generator = load("stickers", device=device).generator

    def start(n: int, rng: torch.Generator) -> Tensor:
        away = 1.5 + 2.5 * torch.rand(n, 1, generator=rng, device=rng.device)
        z, y = torch.randn(2, n, LATENT_DIM, generator=rng, device=rng.device)
        return torch.cat([z.clamp(-2, 2), away * y], 1)

    return start, lambda latent: generator.decode(Latent(*latent.chunk(2, 1)))


def coded(vqgan: VQGAN) -> tuple[Start, Draw]:
    """Return the space of a VQGAN's codes for 64 pixels: from one everywhere to all at random."""
    side = READ // vqgan.factor

    def start(n: int, rng: torch.Generator) -> Tensor:
        few = torch.rand(n, 1, 1, generator=rng, device=rng.device)
        index = torch.randint(len(vqgan.codes), (n, side, side), generator=rng, device=rng.device)
        mixed = torch.rand(n, side, side, generator=rng, device=rng.device) < few
        index = torch.where(mixed, index, index[:, :1, :1].expand_as(index))
        return look_up(index, vqgan.codes).contiguous()

    def draw(z: Tensor) -> Tensor:
        model, q = vqgan.model, look_up(nearest(z.detach(), vqgan.codes), vqgan.codes)
        with torch.autocast(z.device.type, torch.bfloat16, enabled=z.is_cuda):
            return model.decoder(model.post_quant_conv(straight_through(q, z))).float().clamp(-1, 1)

    return start, draw


class Climbs:
    """Climbs in several spaces, ``m`` pictures in each, of which one space is shown and moved at a step.

    The VQGANs are those that ship, until their runs have better ones. With ``attacked``, pictures are climbed
    pixel by pixel as well.
    """

    def __init__(self, runs: Path, m: int, rng: torch.Generator, attacked: bool) -> None:
        vqgans = [Snapshot(runs / name, begin(name), rng.device, share=0.3) for name in LAWS]
        self.watched, self.step = vqgans, 0
        spaces = [("vqgan", coded(VQGAN(vqgan.module))) for vqgan in vqgans]
        spaces.append(("generator", far_off(rng.device)))
        if attacked:
            spaces.append(("pyramid", pyramid()))
        self.chains = [Chains(*space, m, RATES[name], AGES[name], rng) for name, space in spaces]

    def show(self) -> tuple[Tensor, Tensor]:
        """Return the next space's pictures and copies, and the captions that each is climbed for."""
        self.step += 1
        chain = self.chains[self.step % len(self.chains)]
        return chain.show(), chain.target.repeat_interleave(1 + COPIES)

    def move(self, gradient: Tensor) -> None:
        """Move the climbs that were shown along the gradient at their pictures."""
        self.chains[self.step % len(self.chains)].move(gradient)
