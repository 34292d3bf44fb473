"""Scenes of the sticker world: what stands in a picture, before anything is drawn.

Two laws of scenes: :func:`sample_scenes`, rich, for the encoders (styles, effects, two objects,
any place), and :func:`scenes_from_latent`, poor, for the generator (one object near the centre of a
photo, with the combinations of ``nouns.GENERATOR_HELD_OUT`` never shown).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cache

import torch
from torch import Tensor

from . import nouns as world

TEXTURE_DIM = 16
SPRITES = 2  # of each noun: Fluent's and Noto's
LATENT_DIM = 64
STRONG = 1.9  # radius of the hue's two coordinates above which an object is dyed: one latent in six


@dataclass(frozen=True)
class Scenes:
    """A batch of n scenes with up to two objects each; -1 says that there is none.

    Positions are in [-1, 1] of the canvas (y points down), scales are shares of the canvas's width,
    rotations are radians, hues are degrees, strengths of tint lie in [0, 1].
    """

    noun: Tensor  # [n, 2] index into NOUNS
    sprite: Tensor  # [n, 2] which picture of the noun
    colour: Tensor  # [n, 2] index into COLOURS, for the caption
    hue: Tensor  # [n, 2]
    strength: Tensor  # [n, 2]
    place: Tensor  # [n, 2, 5] x, y, scale, rotation, mirror (+1 or -1)
    effect: Tensor  # [n] index into EFFECTS, on the first object
    background: Tensor  # [n] index into BACKGROUNDS
    style: Tensor  # [n] index into STYLES
    relation: Tensor  # [n] index into RELATIONS
    texture: Tensor  # [n, 16] standard normal: clouds, stars, blades of grass
    horizon: Tensor  # [n] share of the height
    brightness: Tensor  # [n]

    def __len__(self) -> int:
        return len(self.background)

    def __getitem__(self, index: slice | Tensor) -> Scenes:
        return Scenes(*(getattr(self, f.name)[index] for f in fields(self)))


def _pairs(pairs: Iterable[tuple[str, str]], first: Iterable[str]) -> Tensor:
    """Return the table [len(first), len(NOUNS)] that is True where a pair is held out."""
    rows = list(first)
    table = torch.zeros(len(rows), len(world.NOUNS), dtype=torch.bool)
    for name, noun in pairs:
        table[rows.index(name), world.NOUNS.index(noun)] = True
    return table


ENCODER_FORBIDDEN = _pairs(world.ENCODER_HELD_OUT, world.COLOURS)
GENERATOR_FORBIDDEN = ENCODER_FORBIDDEN | _pairs(world.GENERATOR_HELD_OUT, world.COLOURS)
PLACES_FORBIDDEN = _pairs(world.GENERATOR_HELD_OUT_PLACES, world.BACKGROUNDS)


def sample_scenes(n: int, rng: torch.Generator, *, two: float = 0.45, smallest: float = 0.48) -> Scenes:
    """Draw n scenes of the encoders' rich world, without the pairs held out from the encoders.

    ``two`` is the share with two objects, ``smallest`` the least scale of a single one.
    """

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=rng)

    def pick(options: int, *shape: int) -> Tensor:
        return torch.randint(options, shape, generator=rng)

    pair = uniform(n) < two
    noun = pick(len(world.NOUNS), n, 2)
    noun[:, 1] = torch.where(noun[:, 1] == noun[:, 0], (noun[:, 1] + 1) % len(world.NOUNS), noun[:, 1])
    sprite = pick(SPRITES, n, 2)
    style = torch.where(uniform(n) < 0.75, 0, pick(len(world.STYLES), n))
    style[pair] = 0  # two small objects do not survive tiles or large pixels
    plain = (style == 1) | (style == 4)  # a sketch and a monochrome photo have no colours to name
    colour = torch.where(uniform(n, 2) < torch.tensor([0.7, 0.5]), pick(len(world.COLOURS), n, 2), -1)
    colour[plain] = -1
    colour[ENCODER_FORBIDDEN[colour.clamp(min=0), noun] & (colour >= 0)] = -1
    effect = torch.where(uniform(n) < 0.12, 1 + pick(2, n), 0)
    effect[plain] = 0
    colour[:, 0][effect > 0] = -1
    hue = torch.tensor(list(world.HUES.values()))[colour.clamp(min=0)]
    relation = torch.where(pair, pick(len(world.RELATIONS), n), -1)
    single = torch.stack(
        [
            uniform(n, low=-0.45, high=0.45),
            uniform(n, low=-0.45, high=0.45),
            uniform(n, low=smallest, high=0.95),
        ],
        -1,
    )
    single[:, :2] *= ((1.15 - single[:, 2]) / 0.6).clamp(0, 1)[:, None]
    where = torch.stack([single, single], 1)
    many = int(pair.sum())
    where[pair] = _arrange(relation[pair], uniform(many, 4), pick(2, many))
    noun[~pair, 1] = -1
    mirror = pick(2, n, 2).float() * 2 - 1
    turn = uniform(n, 2, low=-0.25, high=0.25)
    return Scenes(
        noun=noun,
        sprite=sprite,
        colour=colour,
        hue=hue + uniform(n, 2, low=-12, high=12),
        strength=(colour >= 0).float() * uniform(n, 2, low=0.85),
        place=torch.cat([where, turn[..., None], mirror[..., None]], -1),
        effect=effect,
        background=pick(len(world.BACKGROUNDS), n),
        style=style,
        relation=relation,
        texture=torch.randn(n, TEXTURE_DIM, generator=rng),
        horizon=uniform(n, low=0.45, high=0.75),
        brightness=uniform(n, low=0.88, high=1.1),
    )


def sharp_scenes(n: int, rng: torch.Generator) -> Scenes:
    """Draw n scenes of the encoders' world that hold more the larger they are drawn.

    Fluent's sprites alone (Noto's are stored at 64 pixels), and no sketches: their lines are a pixel
    wide at any size, so a larger sketch is another picture.
    """
    scenes = sample_scenes(n, rng)
    sketch = scenes.style == list(world.STYLES).index("sketch")
    return replace(scenes, sprite=torch.zeros_like(scenes.sprite), style=torch.where(sketch, 0, scenes.style))


def _arrange(relation: Tensor, u: Tensor, side: Tensor) -> Tensor:
    """Place two objects [n, 2, (x, y, scale)] by their relation, from uniforms [n, 4]."""
    a, b = 0.4 + 0.08 * u[:, 0], 0.44 + 0.1 * u[:, 1]
    sign = 2.0 * side - 1
    jitter = 0.2 * (u[:, 2] - 0.5)
    beside = torch.stack(
        [
            torch.stack([sign * (0.45 + 0.06 * u[:, 3]), jitter, a + 0.06], -1),
            torch.stack([-sign * (0.45 + 0.06 * u[:, 3]), -jitter, b], -1),
        ],
        1,
    )
    shift = 0.3 * (u[:, 3] - 0.5)
    # Standing on it: the lower edge of the first meets the upper edge of the second.
    on_top = torch.stack(
        [
            torch.stack([shift, 0.95 - 2 * b - 0.75 * a, a], -1),
            torch.stack([shift + jitter, 0.95 - b, b], -1),
        ],
        1,
    )
    # Above it: a gap between them, and off to one side.
    above = torch.stack(
        [
            torch.stack([-sign * 0.3 + jitter, -0.92 + 0.9 * a, 0.85 * a], -1),
            torch.stack([sign * 0.2, 0.95 - 0.9 * b, 0.85 * b], -1),
        ],
        1,
    )
    table = torch.stack([beside, on_top, above, above.flip(1)], 0)
    return table[relation, torch.arange(len(relation))]


@cache
def _rotation() -> Tensor:
    """Return a fixed orthogonal matrix [64, 64]: a Hadamard matrix with random signs.

    The factors of a scene are not aligned with the axes of z, as in any trained generator; and a
    Hadamard matrix is the same to the last bit on every machine.
    """
    h = torch.ones(1, 1)
    while len(h) < LATENT_DIM:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0)
    signs = torch.randint(2, (LATENT_DIM,), generator=torch.Generator().manual_seed(7)) * 2.0 - 1
    return signs[:, None] * h / math.sqrt(LATENT_DIM)


def scenes_from_latent(z: Tensor, y: Tensor) -> Scenes:
    """Read a scene of the generator's poor world off a latent z [n, 64] ~ N(0, I), class y [n].

    Each factor is a fixed function of a few coordinates of a rotated z, so that the standard normal
    covers the whole world, small z are plain pictures (centred, natural colours) and the tails are
    rare ones: one object in six is dyed. Some z name a pair that the generator was never shown
    (:func:`held_out`).
    """
    u = z @ _rotation().to(z)
    cdf = torch.special.ndtr(u)
    n = len(z)
    radius = u[:, 6:8].norm(dim=1)
    hue = torch.rad2deg(torch.atan2(u[:, 7], u[:, 6])) % 360
    colour = nearest_colours(hue)[0]
    strength = torch.sigmoid((radius - STRONG) / 0.12)
    background = u[:, 8 : 8 + len(world.BACKGROUNDS)].argmax(1)
    scale = 0.8 + 0.08 * cdf[:, 2]
    slack = 0.06
    place = torch.stack(
        [
            (2 * cdf[:, 0] - 1) * slack,
            (2 * cdf[:, 1] - 1) * slack,
            scale,
            torch.zeros(n),
            torch.ones(n),
        ],
        -1,
    )
    none = torch.full((n,), -1)
    zero = torch.zeros(n, dtype=torch.long)
    return Scenes(
        noun=torch.stack([y, none], 1),
        sprite=torch.stack([zero, zero], 1),
        colour=torch.stack([torch.where(strength > 0.5, colour, -1), none], 1),
        hue=torch.stack([hue, torch.zeros_like(hue)], 1),
        strength=torch.stack([strength, torch.zeros_like(strength)], 1),
        place=torch.stack([place, place], 1),
        effect=zero,
        background=background,
        style=zero,
        relation=none,
        texture=u[:, 20 : 20 + TEXTURE_DIM],
        horizon=0.45 + 0.3 * cdf[:, 36],
        brightness=0.9 + 0.18 * cdf[:, 37],
    )


def held_out(scenes: Scenes) -> Tensor:
    """Return which scenes [n] show a pair that the generator must never see.

    A colour counts where more than a tint of it (0.1) is there, and within 5 degrees of the border
    between two colours for both of them.
    """
    noun, device = scenes.noun[:, 0], scenes.noun.device
    near = nearest_colours(scenes.hue[:, 0])[1]
    coloured = GENERATOR_FORBIDDEN.to(device)[near, noun[:, None]].any(1) & (scenes.strength[:, 0] > 0.1)
    return coloured | PLACES_FORBIDDEN.to(device)[scenes.background, noun]


def nearest_colours(hue: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest colour [n] of hues [n] and the colours within 5 degrees of as near [n, 2]."""
    centres = torch.tensor(list(world.HUES.values())).to(hue)
    apart = ((hue[:, None] - centres + 180) % 360 - 180).abs()
    two, which = apart.topk(2, dim=1, largest=False)
    second = torch.where(two[:, 1] - two[:, 0] < 10, which[:, 1], which[:, 0])
    return which[:, 0], torch.stack([which[:, 0], second], 1)
