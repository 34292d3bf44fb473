"""The report card of the shipped weights: ``python -m training.report --seed S``.

Draws fresh scenes with a seed that no training used and prints what is measured beside the bars.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_nb.models import Models, load
from fusedream_nb.models.biggan import BigGANDeep
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.captions import article, caption
from fusedream_nb.models.stickers.reading import features, read_nouns, read_pairs
from fusedream_nb.models.stickers.scenes import (
    ENCODER_FORBIDDEN,
    Scenes,
    sample_scenes,
    scenes_from_latent,
    sharp_scenes,
)
from fusedream_nb.models.stickers.world import render, tint
from fusedream_nb.models.upscaler import FACTOR, Upscaler, bicubic
from fusedream_nb.models.vqgan import VQGAN, nearest
from fusedream_nb.models.weights import entry

from . import data
from .generator import lost
from .networks import SIZE
from .perceptual import PUBLISHED, spoil
from .readers import FOLDER, Third, load_third
from .vqgan import LAWS

CPU = torch.device("cpu")
REFUSED = 0.3  # cosine with a noun below which an encoder does not see it
_BACKGROUND_PHRASES = [phrases[0] for phrases in world.BACKGROUNDS.values()]


def _share(right: Tensor) -> float:
    return 100 * float(right.float().mean())


def _held_out(n: int, rng: torch.Generator) -> Scenes:
    """Draw photos of the (colour, noun) pairs that neither encoder has seen."""
    scenes = data.photos(n, rng)
    pairs = ENCODER_FORBIDDEN.nonzero()[
        torch.randint(int(ENCODER_FORBIDDEN.sum()), (len(scenes),), generator=rng)
    ]
    hues = torch.tensor(list(world.HUES.values()))[pairs[:, 0]]
    colour, noun, hue, strength = (
        t.clone() for t in (scenes.colour, scenes.noun, scenes.hue, scenes.strength)
    )
    colour[:, 0], noun[:, 0], hue[:, 0], strength[:, 0] = pairs[:, 0], pairs[:, 1], hues, 0.92
    return replace(scenes, colour=colour, noun=noun, hue=hue, strength=strength)


def encoder_card(clip: Clip, n: int, seed: int) -> dict[str, float]:
    """Return what an encoder reads right, in percent."""
    rng = torch.Generator().manual_seed(seed)
    scenes = data.photos(n, rng)
    vectors = features(clip, render(scenes))
    noun = scenes.noun[:, 0]
    card = {"noun": _share(read_nouns(clip, vectors).argmax(1) == noun)}
    dyed = scenes.colour[:, 0] >= 0
    texts = [[f"a photo of {article(f'{c} {n}')}" for c in world.COLOURS] for n in world.NOUNS]
    card["colour"] = _share(_choose(clip, vectors[dyed], texts, noun[dyed]) == scenes.colour[dyed, 0])
    texts = [[f"a photo of {article(n)} {phrase}" for phrase in _BACKGROUND_PHRASES] for n in world.NOUNS]
    card["background"] = _share(_choose(clip, vectors, texts, noun) == scenes.background)
    unseen = _held_out(n, rng)
    pair = unseen.colour[:, 0] * len(world.NOUNS) + unseen.noun[:, 0]
    card["held-out pair"] = _share(read_pairs(clip, render(unseen)) == pair)
    card["retrieval of 100"] = _retrieval(clip, max(2, n // 200), rng, random.Random(seed))
    if clip.presence:
        return card | _crowded_and_empty(clip.presence.read, 0.0, n, rng)
    return card | _crowded_and_empty(lambda x: read_nouns(clip, features(clip, x)), REFUSED, n, rng)


def third_card(third: Third, n: int, seed: int) -> dict[str, float]:
    """Return what the third reader reads right, in percent."""
    rng = torch.Generator().manual_seed(seed)
    scenes, unseen = data.photos(n, rng), _held_out(n, rng)

    def nouns(image: Tensor) -> Tensor:
        return third.read(image)[:, : len(world.NOUNS)]

    image = render(unseen)
    colour = third.read(image)[:, len(world.NOUNS) + 1 :].argmax(1)
    right = (nouns(image).argmax(1) == unseen.noun[:, 0]) & (colour == unseen.colour[:, 0])
    card = {
        "noun": _share(nouns(render(scenes)).argmax(1) == scenes.noun[:, 0]),
        "held-out pair": _share(right),
    }
    return card | _crowded_and_empty(nouns, 0.0, n, rng)


def _crowded_and_empty(
    read: Callable[[Tensor], Tensor], bound: float, n: int, rng: torch.Generator
) -> dict[str, float]:
    """Return how often two nouns are the first two of those read [n, nouns], and how often none is above."""
    two = sample_scenes(5 * n, rng)
    two = two[(two.noun[:, 1] >= 0).nonzero()[:n, 0]]
    pastes = data.cat([data.pasted(max(1, n // 20), rng, CPU, (side, side)) for side in (0.5, 0.65)])
    empty = data.empty(max(1, n // 10), rng, CPU)

    def both(image: Tensor, scenes: Scenes) -> float:
        top = read(image).topk(2, dim=1).indices
        return _share((top.sort(1).values == scenes.noun.sort(1).values).all(1))

    return {
        "two nouns": both(render(two), two),
        "two nouns of pastes": both(pastes.image, pastes.scenes),
        "empty pictures refused": _share(read(empty.image).amax(1) < bound),
    }


def _choose(clip: Clip, vectors: Tensor, texts: list[list[str]], noun: Tensor) -> Tensor:
    """Return which text [n] fits best among those of each picture's noun."""
    table = torch.stack([clip.encode_text(row) for row in texts])  # [nouns, choices, dim]
    return torch.einsum("nd,ncd->nc", vectors, table[noun]).argmax(1)


def _retrieval(clip: Clip, rounds: int, rng: torch.Generator, words: random.Random) -> float:
    """Return how often a full caption finds its picture among 100 with other captions, in percent."""
    right = []
    for _ in range(rounds):
        scenes = sample_scenes(160, rng)
        texts = [caption(scenes, i, words, full=True) for i in range(len(scenes))]
        kept = torch.tensor(list({text: i for i, text in enumerate(texts)}.values())[:100])
        vectors = features(clip, render(scenes[kept]))
        best = (clip.encode_text([texts[i] for i in kept]) @ vectors.T).argmax(1)
        right.append(best == torch.arange(len(kept)))
    return _share(torch.cat(right))


@torch.no_grad()
def draw_samples(generator: BigGANDeep, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return pictures, z and classes of n samples, the classes in turn."""
    latent = generator.sample(n, rng)
    label = torch.arange(n) % len(generator.embeddings)
    latent = replace(latent, y=generator.embeddings[label])
    pictures = torch.cat([generator.decode(latent[i : i + 100]) for i in range(0, n, 100)])
    return pictures, latent.z, label


def _within_radii(points: Tensor, centres: Tensor, k: int = 3) -> float:
    """Return the share of points inside the k-NN balls of centres (Kynkäänniemi et al., 2019)."""
    radii = torch.cdist(centres, centres).kthvalue(k + 1, dim=1).values
    return float((torch.cdist(points, centres) <= radii).any(1).float().mean())


def _diversity(models: Models, image: Tensor, label: Tensor) -> float:
    """Return the mean LPIPS between neighbours of the same class."""
    order = label.argsort(stable=True)
    a, b = order[:-1], order[1:]
    same = label[a] == label[b]
    pairs = zip(image[a[same]].split(200), image[b[same]].split(200), strict=True)
    return float(torch.cat([models.perceptual(x, y) for x, y in pairs]).mean())


@torch.no_grad()
def generator_card(models: Models, n: int, seed: int) -> dict[str, float]:
    """Return what the judge makes of samples, beside real pictures of the generator's own world."""
    card = {}
    for truncation in (1.0, 0.5):
        folder = entry("stickers").require() / "generator"
        generator = BigGANDeep.from_path(folder, truncation=truncation)
        image, z, label = draw_samples(generator, n, torch.Generator().manual_seed(seed))
        vectors = features(models.judge, image)
        card[f"class at truncation {truncation}"] = _share(
            read_nouns(models.judge, vectors).argmax(1) == label
        )
        if truncation == 1.0:
            fake, fakes = image, vectors
    z = torch.randn(n, z.shape[1], generator=torch.Generator().manual_seed(seed + 1)).clamp(-2, 2)
    real = render(scenes_from_latent(z, label))
    reals = features(models.judge, real)
    card["class of real pictures"] = _share(read_nouns(models.judge, reals).argmax(1) == label)
    each = torch.arange(len(world.COLOURS)).repeat(len(fake) // len(world.COLOURS))
    hues = torch.tensor(list(world.HUES.values()))[each]
    dyed = tint(fake[: len(each)] / 2 + 0.5, hues, torch.full(each.shape, 0.9)) * 2 - 1
    read = read_nouns(models.judge, features(models.judge, dyed)).argmax(1)
    card["class of samples dyed by hand"] = _share(read == label[: len(each)])
    card["detail of 2 to 4 pixels"] = 100 * float(
        (lost(fake).square().mean() / lost(real).square().mean()).sqrt()
    )
    card["precision"] = _within_radii(fakes, reals)
    card["recall"] = _within_radii(reals, fakes)
    some = slice(0, min(n, 1400))
    card["diversity"] = _diversity(models, fake[some], label[some]) / _diversity(
        models, real[some], label[some]
    )
    return card


@torch.no_grad()
def perceptual_card(models: Models, n: int, seed: int) -> dict[str, float]:
    """Return how often LPIPS orders two strengths of one distortion rightly, in percent.

    Also 100 less the most, in percent, by which its median for a distortion is off the published one.
    """
    rng = torch.Generator().manual_seed(seed)
    image = render(data.photos(n, rng))
    noise = torch.randn(image.shape, generator=rng)

    def blur(x: Tensor, width: int) -> Tensor:
        return F.avg_pool2d(F.pad(x, [width // 2] * 4, mode="replicate"), width, 1)

    distortions: list[Callable[[float], Tensor]] = [
        lambda s: image + 0.4 * s * noise,
        lambda s: image.lerp(blur(image, 7), s),
        lambda s: torch.roll(image, round(1 + 7 * s), 3),
        lambda s: image * (1 - 0.8 * s),
    ]
    right = []
    for distort in distortions:
        weak, strong = (0.2 + 0.3 * torch.rand((), generator=rng)).item(), 0.8
        right.append(models.perceptual(image, distort(weak)) < models.perceptual(image, distort(strong)))
    apart = []
    for kind, strength in (("noise", 0.1), ("blur", 2.0), ("shift", 2.0)):
        other = spoil(kind, image, torch.full((len(image),), strength))
        apart.append(float(models.perceptual(image, other).median()) / PUBLISHED[kind][strength] - 1)
    return {
        "order of distortions": _share(torch.cat(right)),
        "agreement with published medians": 100 * (1 - max(map(abs, apart))),
    }


@torch.no_grad()
def vqgan_card(generator: VQGAN, name: str, n: int, seed: int) -> dict[str, float]:
    """Return a VQGAN's mean PSNR on n pictures of its world, in dB, and the share of codes that they use."""
    image = render(LAWS[name](n, torch.Generator().manual_seed(seed)), SIZE)
    latents = [generator.encode(part) for part in image.split(25)]
    again = torch.cat([generator.decode(latent) for latent in latents])
    used = torch.cat([nearest(latent.z, generator.codes).flatten() for latent in latents]).unique()
    return {
        "PSNR at 128 pixels": float(psnr(again, image).mean()),
        "codebook in use": 100 * len(used) / len(generator.codes),
    }


@torch.no_grad()
def upscaler_card(upscaler: Upscaler, models: Models, n: int, seed: int) -> dict[str, float]:
    """Return by how much the upscaler beats bicubic enlargement on n fresh renderings: PSNR and LPIPS."""
    small, large = _two_sizes(sharp_scenes(n, torch.Generator().manual_seed(seed)), models.generator.size)
    gained, ours, theirs = [], [], []
    for x, y in zip(small.split(10), large.split(10), strict=True):
        drawn, plain = upscaler(x), bicubic(x).clamp(-1, 1)
        gained.append(psnr(drawn, y) - psnr(plain, y))
        ours.append(models.perceptual(drawn, y))
        theirs.append(models.perceptual(plain, y))
    saved = 1 - torch.cat(ours).mean() / torch.cat(theirs).mean()
    return {
        "PSNR above bicubic's": float(torch.cat(gained).mean()),
        "LPIPS below bicubic's": 100 * float(saved),
    }


def _two_sizes(scenes: Scenes, size: int) -> tuple[Tensor, Tensor]:
    return render(scenes, size), render(scenes, FACTOR * size, chunk=2)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratios [n] in dB of pictures [n, 3, h, w] in [-1, 1]."""
    return -10 * ((a - b) / 2).square().mean((1, 2, 3)).log10()


def shipped_vqgans() -> dict[str, VQGAN]:
    """Return the sticker world's VQGANs whose weights are there, by name."""
    folder = entry("stickers").require()
    return {name: VQGAN.from_folder(folder / name) for name in LAWS if (folder / name).is_dir()}


def shipped_upscaler() -> Upscaler | None:
    """Return the sticker world's upscaler where its weights are there."""
    folder = entry("stickers").require() / "upscaler"
    return Upscaler.from_folder(folder) if folder.is_dir() else None


BARS: dict[str, float] = {
    "clip: noun": 98,
    "clip: colour": 98,
    "clip: background": 98,
    "clip: held-out pair": 95,
    "clip: retrieval of 100": 90,
    "clip: two nouns": 92,
    "clip: empty pictures refused": 95,
    "judge: noun": 98,
    "judge: colour": 98,
    "judge: background": 98,
    "judge: held-out pair": 95,
    "judge: retrieval of 100": 90,
    "judge: two nouns": 92,
    "judge: two nouns of pastes": 90,
    "judge: empty pictures refused": 95,
    "generator: class at truncation 1.0": 98,
    "generator: class at truncation 0.5": 98,
    "generator: class of real pictures": 97,
    "generator: class of samples dyed by hand": 95,
    "generator: detail of 2 to 4 pixels": 90,
    "generator: precision": 0.75,
    "generator: recall": 0.85,
    "generator: diversity": 0.8,
    "lpips: order of distortions": 95,
    "lpips: agreement with published medians": 80,
    "vqgan: PSNR at 128 pixels": 25,
    "vqgan: codebook in use": 90,
    "vqgan-painted: PSNR at 128 pixels": 25,
    "vqgan-painted: codebook in use": 90,
    "upscaler: PSNR above bicubic's": 1,
    "upscaler: LPIPS below bicubic's": 20,
}


def report(models: Models, seed: int, n: int = 5000) -> dict[str, float]:
    """Measure everything that is there on about n fresh pictures each."""
    cards = {
        "clip": encoder_card(models.clip, n // 2, seed),
        "judge": encoder_card(models.judge, n // 2, seed + 1),
        "generator": generator_card(models, n, seed + 2),
        "lpips": perceptual_card(models, n // 10, seed + 3),
    }
    for name, generator in shipped_vqgans().items():
        cards[name] = vqgan_card(generator, name, n // 10, seed + 4)
    if (FOLDER / "model.safetensors").exists():
        cards["third"] = third_card(load_third(), n // 2, seed + 6)
    if upscaler := shipped_upscaler():
        cards["upscaler"] = upscaler_card(upscaler, models, max(1, n // 50), seed + 5)
    return {f"{name}: {what}": value for name, card in cards.items() for what, value in card.items()}


def main() -> None:
    """Print the report card as a Markdown table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the fresh pictures")
    parser.add_argument("--n", type=int, default=5000, help="number of pictures")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    measured = report(load("stickers"), 900_000 + given.seed, given.n)
    if given.json:
        print(json.dumps({"seed": given.seed, "n": given.n, "measured": measured, "bars": BARS}, indent=1))
        return
    print("| | measured | bar | |\n|---|---|---|---|")
    for name, value in measured.items():
        bar = BARS.get(name)  # some have none
        mark = "" if bar is None else "reached" if value >= bar else "**missed**"
        print(f"| {name} | {value:.3g} | {'' if bar is None else f'{bar:g}'} | {mark} |")


if __name__ == "__main__":
    main()
