"""Whether weights do what only the right ones do: for files whose hash nobody has published.

Pictures are drawn, coded or named, and what comes right is counted. That tells trained weights from others
and finds damage that shows; what does not show, only a hash finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _clip, _generator, _path, resolve_device
from .generators import TEMPLATE, ClassConditional, Latent
from .perceptual import Perceptual
from .stickers.nouns import NOUNS
from .stickers.scenes import sample_scenes
from .stickers.world import render, sprite_sheet
from .weights import CLIP, entry

if TYPE_CHECKING:
    from .encoders import Clip
    from .vqgan import VQGAN

PARTS = dict.fromkeys(("generator", "vqgan", "vqgan-painted"), "generator")  # of the stickers, with roles
PARTS |= {"clip": "clip", "judge": "clip", "lpips": "perceptual"}
SHOWN, TRUNCATION = 20, 0.5  # classes of a BigGAN, one picture each
NAMED = 0.7  # of the pictures, at least, get their own name from CLIP: chance is 1 in 20 or 28
DECIBELS = 18.0  # at least, of pictures that a VQGAN has coded; their mean colours alone give 12
NOISE = {"squeeze": 0.1024, "vgg": 0.3493}  # LPIPS of uniform noise, 100 × 100: torchmetrics' documentation
WITHIN = 0.06  # of that: its own versions differ by 0.02
ALIKE = 0.6  # at most, of the stickers' LPIPS: two drawings of one noun against those of two


@dataclass(frozen=True)
class Look:
    """What was found of one model, and the pictures [n, 3, h, w] in [-1, 1] for a contact sheet, if any."""

    name: str
    passed: bool
    found: str
    pictures: Tensor | None = None


def look(name: str, device: str | None = None) -> Iterator[Look]:
    """Load a model, or each of "stickers", and measure what only the right weights give.

    Files that cannot be loaded are a Look that has not passed. An upscaler gives none.
    Raises ValueError for a name that is not known.
    """
    head, _, part = name.partition("/")
    names = {f"stickers/{p}": PARTS[p] for p in ([part] if part else PARTS)} if head == "stickers" else {}
    for one, role in (names or {name: entry(name).role}).items():
        if role in LOOKS:
            try:
                with torch.no_grad():
                    yield LOOKS[role](one, resolve_device(device))
            except (OSError, ValueError) as error:
                yield Look(one, False, str(error))


def _at_generator(name: str, device: torch.device) -> Look:
    generator = _generator(_path(name), truncation=TRUNCATION).to(device)
    if not isinstance(generator, ClassConditional):
        return _at_vqgan(name, generator, device)
    names = generator.class_names
    shown = torch.linspace(0, len(names) - 1, min(SHOWN, len(names))).round().long()
    if not len(shown):
        return Look(name, False, "its classes have no names to look for")
    z = generator.sample(len(shown), torch.Generator().manual_seed(0)).z
    latent = Latent(z, generator.embeddings[shown.to(device)])
    images = torch.cat([generator.decode(latent[i : i + 1]) for i in range(len(latent))])
    reader = _clip("stickers/clip" if name.startswith("stickers") else CLIP).to(device)
    return _named(name, images, [names[i] for i in shown], reader, f"of its classes, read by {reader.name}")


def _at_vqgan(name: str, generator: VQGAN, device: torch.device) -> Look:
    images = render(sample_scenes(5, torch.Generator().manual_seed(0)), generator.size).to(device)
    coded = generator.decode(generator.encode(images))
    decibels = -10 * ((coded - images) / 2).square().mean((1, 2, 3)).log10()
    found = f"five pictures coded and decoded: {decibels.mean():.1f} dB, at least {DECIBELS:g} expected"
    return Look(name, bool(decibels.mean() >= DECIBELS), found, torch.cat([images, coded]))


def _at_clip(name: str, device: torch.device) -> Look:
    clip = _clip(name).to(device)
    return _named(name, _sprites(clip.size).flatten(0, 1).to(device), NOUNS, clip, "of the bundled sprites")


def _at_perceptual(name: str, device: torch.device) -> Look:
    ours = name.startswith("stickers")
    distance = Perceptual.from_path(_path(name)).to(device)
    images, rng = _sprites(64).to(device), torch.Generator().manual_seed(0)
    a, b = images.unbind(1)
    noise = torch.randn(a[:4].shape, generator=rng).to(device)
    rising = [float(distance(a[:4], a[:4] + std * noise).mean()) for std in (0.0, 0.1, 0.2, 0.4)]
    blurred = [F.interpolate(F.avg_pool2d(a[:4], n), scale_factor=n) for n in (2, 4, 8)]
    softer = [float(distance(a[:4], image).mean()) for image in blurred]
    passed = all(x == sorted(x) for x in (rising, softer)) and rising[0] < 1e-6
    if ours:
        value = float(distance(a, b).mean() / distance(a, b.roll(1, 0)).mean())
        passed, expected = passed and value <= ALIKE, f"two drawings of a noun, of two: at most {ALIKE:g}"
    else:
        uniform = (2 * torch.rand(2, 10, 3, 100, 100, generator=rng) - 1).to(device)
        value, published = float(distance(*uniform).mean()), NOISE.get(distance.module.pnet_type)
        passed = passed and (published is None or abs(value / published - 1) <= WITHIN)
        expected = f"of uniform noise, published {published or 'nowhere'}"
    order = "rise" if passed else "should rise"
    return Look(name, passed, f"distances of noise and blur {order}; {value:.4f} ({expected})")


def _named(name: str, images: Tensor, names: Sequence[str], clip: Clip, what: str) -> Look:
    """Look whether CLIP gives pictures, the same number of each name in turn, their own names."""
    texts = clip.encode_text([TEMPLATE.format(noun) for noun in names])
    own = torch.arange(len(names)).repeat_interleave(len(images) // len(names))
    right = int(((clip.encode_image(images) @ texts.T).argmax(1).cpu() == own).sum())
    found = f"{right} of {len(images)} pictures {what}, named right, at least {NAMED:.0%} expected"
    return Look(name, right >= NAMED * len(images), found, images)


def _sprites(size: int) -> Tensor:
    """Return two drawings of each noun on white, [nouns, 2, 3, size, size] in [-1, 1]."""
    rgba = sprite_sheet(size, torch.device("cpu"))
    return 2 * (rgba[:, :, :3] + 1 - rgba[:, :, 3:]) - 1


LOOKS = {"generator": _at_generator, "clip": _at_clip, "perceptual": _at_perceptual}
