"""Pictures that are climbed while an encoder trains, and shown to it as wrong answers.

An encoder that only ever saw faultless scenes takes any stain for something. So each training step also moves
a set of latents one step up its loss, in the spaces that are climbed later: VQGAN codes, BigGAN latents
far from any class, pyramids of pixels. The pictures are shown to it with the answer "nothing".
As in an energy-based model (Xie et al., 2016), what is climbed becomes harder to tell from what is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import VQModel
from torch import Tensor, nn

from fusedream_nb.models.vqgan import look_up, nearest, straight_through

from .data import COLOURS, NOUNS
from .networks import READ, SHAPE, SIZE, VQGAN_CONFIG, TrainableBigGAN
from .run import Snapshot

RATES = {"vqgan": 0.08, "generator": 0.05, "pyramid": 0.05}  # Adam's, drawn anew between half and twice
AGES = {"vqgan": 100, "generator": 12, "pyramid": 60}  # steps after which a climb begins again, at most
SIDES = (4, 8, 16, 32, 64)  # of the pyramid's grids


@dataclass
class Chains:
    """Climbs of one space: latents [m, dim], Adam's moments, ages, rates, and captions to climb for [m]."""

    start: Callable[[int, torch.Generator], Tensor]
    draw: Callable[[Tensor], Tensor]
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
        """Return a random view [m, 3, 64, 64] of each picture, remembering its graph."""
        self._leaf = self.z.detach().requires_grad_()
        self._shown = view(self.draw(self._leaf), self.rng)
        return self._shown.detach()

    @torch.no_grad()
    def move(self, gradient: Tensor) -> None:
        """Take an Adam step along the gradient [m, 3, 64, 64] at the views; begin old climbs again."""
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


def view(image: Tensor, rng: torch.Generator) -> Tensor:
    """Return one square part [n, 3, 64, 64] of each picture [n, 3, 128, 128], half of them whole."""
    n, device = len(image), image.device
    u = torch.rand(n, 4, generator=rng, device=device)
    half = torch.where(u[:, 0] < 0.5, 1.0, 0.3 + 0.7 * u[:, 1])
    centre = (2 * u[:, 2:] - 1) * (1 - half)[:, None]
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = half
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, [n, 3, 2 * READ, 2 * READ], align_corners=False)
    return F.avg_pool2d(F.grid_sample(image.float(), grid, align_corners=False, padding_mode="border"), 2)


def pyramid(m: int, rng: torch.Generator) -> Chains:
    """Return climbs of pictures that are sums of grids of all sizes (Fort and Whitaker, 2025)."""
    total = sum(3 * side**2 for side in SIDES)

    def start(n: int, rng: torch.Generator) -> Tensor:
        return 0.3 * torch.randn(n, total, generator=rng, device=rng.device)

    def draw(z: Tensor) -> Tensor:
        parts = z.split([3 * side**2 for side in SIDES], 1)
        grids = [part.unflatten(1, (3, side, side)) for part, side in zip(parts, SIDES, strict=True)]
        big = [F.interpolate(g, size=(SIZE, SIZE), mode="bilinear", align_corners=False) for g in grids]
        return torch.stack(big).sum(0).tanh()

    return Chains(start, draw, m, RATES["pyramid"], AGES["pyramid"], rng)


def far_off(m: int, snapshot: Snapshot, rng: torch.Generator) -> Chains:
    """Return climbs of a generator's latents, begun two to five times as far out as any class."""
    blocks = len(SHAPE.widths) - 1

    def start(n: int, rng: torch.Generator) -> Tensor:
        far = 1.5 + 3.5 * torch.rand(n, 1, generator=rng, device=rng.device)
        z = torch.randn(n, SHAPE.chunk * (1 + blocks), generator=rng, device=rng.device)
        return torch.cat(
            [z.clamp(-2, 2), far * torch.randn(n, SHAPE.embedding, generator=rng, device=rng.device)], 1
        )

    def draw(latent: Tensor) -> Tensor:
        z, y = latent.split([SHAPE.chunk * (1 + blocks), SHAPE.embedding], 1)
        with torch.autocast(z.device.type, torch.bfloat16, enabled=z.is_cuda):
            return snapshot.module(z, y).float()

    return Chains(start, draw, m, RATES["generator"], AGES["generator"], rng)


def coded(m: int, snapshot: Snapshot, rng: torch.Generator) -> Chains:
    """Return climbs of a VQGAN's grid of codes, straight through the quantiser, from random codes."""
    model = snapshot.module

    def start(n: int, rng: torch.Generator) -> Tensor:
        codes = model.quantize.embedding.weight
        side, few = SIZE // 8, torch.rand(n, 1, 1, generator=rng, device=rng.device)
        index = torch.randint(len(codes), (n, side, side), generator=rng, device=rng.device)
        plain = index[:, :1, :1].expand_as(index)  # from one code everywhere to all at random
        mixed = torch.rand(n, side, side, generator=rng, device=rng.device) < few
        return codes[torch.where(mixed, index, plain)].movedim(-1, 1).contiguous()

    def draw(z: Tensor) -> Tensor:
        codes = model.quantize.embedding.weight
        q = look_up(nearest(z.detach(), codes), codes)
        with torch.autocast(z.device.type, torch.bfloat16, enabled=z.is_cuda):
            return model.decoder(model.post_quant_conv(straight_through(q, z))).float().clamp(-1, 1)

    return Chains(start, draw, m, RATES["vqgan"], AGES["vqgan"], rng)


@dataclass
class Climbs:
    """All climbs beside one encoder; a space that waits joins when its model has weights."""

    rng: torch.Generator
    chains: dict[str, Chains]
    waiting: dict[str, tuple[Snapshot, Callable[..., Chains], int]] = field(default_factory=dict)

    @classmethod
    def beside(cls, folder: Path, m: int, rng: torch.Generator) -> Climbs:
        """Return m climbs in the spaces of the models that train in a folder."""
        vqgan = Snapshot(folder / "vqgan", VQModel(**VQGAN_CONFIG), rng.device, share=0.3)
        generator = Snapshot(folder / "generator", TrainableBigGAN(), rng.device, share=0.6)
        waiting = {
            "vqgan": (vqgan, coded, max(1, m // 2)),
            "generator": (generator, far_off, max(1, m // 4)),
        }
        return cls(rng, {"pyramid": pyramid(max(1, m // 4), rng)}, waiting)

    def refresh(self) -> None:
        """Take in newer weights of the spaces' models."""
        for name, (snapshot, make, m) in self.waiting.items():
            if snapshot.refresh() and name not in self.chains:
                self.chains[name] = make(m, snapshot, self.rng)

    @property
    def generator(self) -> nn.Module | None:
        """The generator, once it has weights."""
        snapshot = self.waiting["generator"][0] if self.waiting else None
        return snapshot.module if snapshot and snapshot.ready else None

    def show(self) -> tuple[Tensor, Tensor]:
        """Return the views [m, 3, 64, 64] of all climbs, and the captions [m] that they climb for."""
        views = [chain.show() for chain in self.chains.values()]
        return torch.cat(views), torch.cat([chain.target for chain in self.chains.values()])

    def move(self, gradient: Tensor) -> None:
        """Move each climb along the gradient [m, 3, 64, 64] at its view."""
        sizes = [chain.m for chain in self.chains.values()]
        for chain, part in zip(self.chains.values(), gradient.split(sizes), strict=True):
            chain.move(part)
