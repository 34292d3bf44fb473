"""What notebooks measure: what a judge reads, scores on fixed copies, a run's moments, fans of arrows."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import TypeVar

import torch
from torch import Tensor

from fusedream_nb.method import bank, views
from fusedream_nb.method.bank import start_views
from fusedream_nb.method.barrier import two_gradients
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.compose import Halves, fused
from fusedream_nb.method.latents import OverParameterised, Pyramid, top_k
from fusedream_nb.method.placement import Placement
from fusedream_nb.method.run import Step
from fusedream_nb.method.scores import AugCLIP, Score
from fusedream_nb.models import Models, load
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.generators import Generator, Latent
from fusedream_nb.models.stickers.captions import article
from fusedream_nb.models.stickers.nouns import NOUNS
from fusedream_nb.models.vqgan import VQGAN

THINGS = ("dog", "cat", "bird", "fish", "butterfly", "car", "ship", "house", "church", "mushroom", "flower")
READ = 64  # pictures that a Reader holds in memory at a time
S = TypeVar("S", bound=Step)


def load_vqgan(
    name: str | None,
    *,
    device: str | None = None,
    canvas: tuple[int, int] | None = None,
    sticker: str = "stickers/vqgan",
    real: str = "vqgan-imagenet-16384",
    sticker_canvas: tuple[int, int] | None = None,
) -> Models:
    """Load a VQGAN by name; for another generator's name that of its world, and say which.

    ``name`` None reads FUSEDREAM_MODEL, else takes the stickers. A canvas is (height, width) in pixels;
    None is the VQGAN's own.
    """
    name = name or os.environ.get("FUSEDREAM_MODEL") or "stickers"
    other = {"stickers": sticker}.get(name, real if name.startswith("biggan") else name)
    if other != name and name != "stickers":
        print(f"{name} has no grid of codes, so {other} is taken.")
    return load(other, device=device, canvas=sticker_canvas if other.startswith("stickers") else canvas)


def nouns(models: Models, *wanted: str) -> list[str]:
    """Return the nouns that a judge may choose among: the wanted ones, and those of the models' world."""
    return list(dict.fromkeys([*wanted, *(NOUNS if models.world else THINGS)]))


def phrase(noun: str) -> str:
    """Return "a photo of a dog", or of "an owl"."""
    return f"a photo of {article(noun)}"


class Reader:
    """What an encoder reads in pictures among given texts; take one that no run has climbed.

    Args:
        judge: the encoder. Where it has a ``presence``, that reads nouns: cosines miss a second one.
        names: what the texts stand for, as it is reported.
        texts: the texts themselves; None: a phrase for each name, which is then a noun.
    """

    def __init__(self, judge: Clip, names: Sequence[str], texts: Sequence[str] | None = None) -> None:
        self.judge, self.names = judge, list(names)
        self.vectors = judge.encode_text(list(texts or map(phrase, names)))
        known = texts is None and set(names) <= set(NOUNS)
        self.presence = getattr(judge, "presence", None) if known else None

    @torch.no_grad()
    def cosines(self, images: Tensor) -> Tensor:
        """Return the cosines [n, names] of images [n, 3, h, w] in [-1, 1], on the CPU."""
        parts = images.to(self.vectors.device).split(READ)
        return torch.cat([self.judge.encode_image(part) @ self.vectors.T for part in parts]).float().cpu()

    def scores(self, images: Tensor) -> Tensor:
        """Return what names are ranked by [n, names]: the logits of their presence, or else the cosines."""
        if self.presence is None:
            return self.cosines(images)
        found: Tensor = self.presence.read(images)
        return found[:, [NOUNS.index(name) for name in self.names]]

    def __call__(self, images: Tensor) -> list[str]:
        """Return the name with the highest score for each image [n, 3, h, w]."""
        return [names[0] for names in self.top(images, 1)]

    def top(self, images: Tensor, n: int = 2) -> list[list[str]]:
        """Return the n names with the highest scores for each image, the highest first."""
        return [[self.names[i] for i in row] for row in self.scores(images).topk(n).indices.tolist()]

    def finds(self, images: Tensor, wanted: Sequence[str]) -> list[bool]:
        """Return for each image whether its best names are the wanted ones, in any order."""
        return [set(names) == set(wanted) for names in self.top(images, len(set(wanted)))]


def fixed_score(clip: Clip, text: str | Sequence[str], copies: int, seed: int = 0) -> AugCLIP:
    """Return AugCLIP (Eq. 3) on copies that a seed fixes: no run that climbs others has met them."""
    numbers = views.sample(1, copies, torch.Generator().manual_seed(seed))
    return AugCLIP(clip, text, copies, fixed=numbers)


def start_score(clip: Clip, text: str | Sequence[str], copies: int) -> AugCLIP:
    """Return AugCLIP on the views that every run's start is ranked by, so that a bank serves it."""
    return AugCLIP(clip, text, copies, fixed=start_views(copies))


class Dealt:
    """The M samples of one bank, dealt out among seeds: each ranks a share of its own (Algorithm 1, line 2).

    So several seeds have independent starts, and none has a picture drawn for it.

    Args:
        models: whose generator and CLIP.
        M: how many samples the bank of the first seed has.
        copies: how many views each is ranked by, a Budget's ``start_copies``.
        seeds: among whom the samples are dealt out.
    """

    @torch.no_grad()
    def __init__(self, models: Models, M: int, copies: int, seeds: Sequence[int]) -> None:
        rng, same, self.clip = torch.Generator().manual_seed(seeds[0]), start_views(copies), models.clip
        key = bank.bank_key(models.generator, models.clip, same, M, rng) if M >= bank.WORTH else None
        self.seeds, self.latents = list(seeds), models.generator.sample(M, rng)
        make = partial(bank.image_vectors, models.generator, models.clip, same, self.latents)
        self.vectors = bank.kept(key, make) if key else make()

    def places(self, texts: Sequence[str], seeds: Sequence[int], k: int) -> Tensor:
        """Return where the k best for each text [n, k] are among all samples, within its seed's share."""
        found, vectors = [], self.clip.encode_text(list(texts)).float().cpu()
        for text, seed in zip(vectors, seeds, strict=True):
            first, every = self.seeds.index(seed), len(self.seeds)
            scores = self.vectors[first::every].float().cpu() @ text
            found.append(first + every * scores.topk(k).indices)
        return torch.stack(found)

    def start(self, texts: Sequence[str], seeds: Sequence[int], k: int) -> OverParameterised:
        """Return the start of n runs, a text and a seed each."""
        return OverParameterised.start(self.latents[self.places(texts, seeds, k).to(self.latents.z.device)])


@torch.no_grad()
def rate(score: Score, images: Tensor, at_once: int = 64) -> Tensor:
    """Return a score without randomness of its own [n] of images [n, 3, h, w], a few at a time, on the CPU.

    With one text per image, ``at_once`` must be n or more.
    """
    return torch.cat([score(part, torch.Generator()).float().cpu() for part in images.split(at_once)])


def last(run: Iterable[S]) -> S:
    """Take all steps of a run, and return the last one; IndexError where there is none."""
    return deque(run, maxlen=1).pop()


def moments(run: Iterable[S], count: int) -> list[S]:
    """Take all steps of a run; return count of them (at least two), evenly spaced, the first and last too."""
    parts = max(1, count - 1)
    return [step for step in run if step.index in {round(i * step.total / parts) for i in range(parts + 1)}]


def gradient_lengths(
    models: Models, score: Score, pair: Sequence[Halves], placements: Sequence[Placement]
) -> tuple[Tensor, Tensor]:
    """Return ‖∇ℓ_Fuse‖ and ‖∇s_Fuse‖ [n] of compositions: their ratio says what β of Eq. 6 weighs.

    Args:
        models: the generator and the perceptual loss.
        score: s, without randomness of its own.
        pair: the foregrounds' and the backgrounds' parameterisations, n latents each.
        placements: one for each composition, with boxes of one size.
    """
    pair = [half.like([p.detach().clone().requires_grad_() for p in half.parameters()]) for half in pair]
    images = [models.generator.decode(half.combine()) for half in pair]
    _, s, loss = fused(images[0], images[1], placements, score, models.perceptual, torch.Generator())
    gradients = two_gradients(loss, s, [p for half in pair for p in half.parameters()])
    return gradients[0].norm(dim=1), gradients[1].norm(dim=1)


def fan(tangents: Tensor) -> Tensor:
    """Return the circular standard deviation in degrees [...] of directions [..., patches, m].

    sqrt(-2 log R) for the length R of the mean unit vector (Mardia and Jupp, 2000): 0 for parallel arrows.
    """
    length = torch.nn.functional.normalize(tangents.float(), dim=-1).mean(-2).norm(dim=-1)
    return (-2 * length.clamp(max=1).log()).sqrt().rad2deg().cpu()


def correlation(costs: Tensor) -> Tensor:
    """Return the mean correlation [...] of costs [..., patches, m] over all pairs of the m prompts."""
    centred = costs.float() - costs.float().mean(-2, keepdim=True)
    unit = torch.nn.functional.normalize(centred, dim=-2)
    table = unit.transpose(-1, -2) @ unit
    m = table.shape[-1]
    return ((table.sum((-1, -2)) - table.diagonal(dim1=-1, dim2=-2).sum(-1)) / (m * (m - 1))).cpu()


def imbalance(nearest: Tensor, m: int) -> Tensor:
    """Return how unevenly patches are shared out [...], from the nearest of m prompts of each [..., patches].

    The total variation distance from even shares, over its largest value: 0 for even shares, 1 where one
    prompt has all patches; |n1 - n2| / n for two prompts.
    """
    shares = torch.nn.functional.one_hot(nearest, m).float().mean(-2)
    return ((shares - 1 / m).abs().sum(-1) / (2 - 2 / m)).cpu()


@torch.no_grad()
def sample_start(
    models: Models,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sizes: Budget,
    grid: tuple[int, int] | None = None,
) -> Pyramid:
    """Return a start for each seed: the VQGAN's codes, as sums of coarser and finer grids.

    In the sticker world of a BigGAN's best of M samples for each prompt, in rows and columns that take the
    prompts in turn, the next best for the next seed; elsewhere random codes, as in the paper.

    Args:
        models: whose VQGAN encodes the start, and whose CLIP ranks the samples.
        prompts: what the samples are ranked by.
        seeds: one a picture; of the best samples, ten seeds have their own.
        sizes: M, and the views by which samples are ranked.
        grid: rows and columns; None: the smallest square with a place for each prompt.
    """
    vqgan, m = models.generator, len(prompts)
    assert isinstance(vqgan, VQGAN)
    if not models.world:
        return Pyramid(Latent.cat([vqgan.sample(1, torch.Generator().manual_seed(seed)) for seed in seeds]))
    side = math.isqrt(m - 1) + 1
    down, across = grid or (side, side)
    per = math.ceil(down * across / m)
    painter = _painter(models.device.type)
    rank = start_score(models.clip, prompts, sizes.start_copies)
    rng, most = torch.Generator().manual_seed(0), per * (max(seed % 10 for seed in seeds) + 1)
    found, _ = top_k(painter, rank.table, sizes.M, most, rng)
    best, pictures = found.map(lambda t: t.flatten(0, 1)), []
    for seed in seeds:
        rows = [(t % m) * most + per * (seed % 10) + t // m for t in range(down * across)]
        drawn = torch.cat([painter.decode(best[row : row + 1]) for row in rows])
        size = vqgan.canvas[0] // down, vqgan.canvas[1] // across
        tiles = torch.nn.functional.interpolate(drawn, size, mode="bilinear", antialias=True)
        pictures.append(torch.cat([torch.cat([*row], -1) for row in tiles.split(across)], -2))
    return Pyramid(vqgan.encode(torch.stack(pictures).clamp(-1, 1)))


@cache
def _painter(device: str) -> Generator:
    return load("stickers", device=device).generator
