"""The law by which the latents of a plain BigGAN stand for scenes.

It differs from the BigGAN-deep's (:mod:`fusedream_nb.models.stickers.scenes`) in one way: a BigGAN cuts z
into a part for each layer, so coarse factors stand in the first part and fine ones in later ones.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.scenes import STRONG, Scenes, nearest_colours

CHUNK = 16  # numbers of z that each layer of the generator reads
LATENT_DIM = 6 * CHUNK


@cache
def _rotation(device: torch.device) -> Tensor:
    """Return a fixed orthogonal matrix [16, 16]: a Hadamard matrix with random signs.

    The factors of a scene are not aligned with the axes of z, as in any trained generator; and a
    Hadamard matrix is the same to the last bit on every machine.
    """
    h = torch.ones(1, 1)
    while len(h) < CHUNK:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0)
    signs = torch.randint(2, (CHUNK,), generator=torch.Generator().manual_seed(7)) * 2.0 - 1
    return (signs[:, None] * h / math.sqrt(CHUNK)).to(device)


def scenes_from_latent(z: Tensor, y: Tensor) -> Scenes:
    """Read a scene of the generator's poor world off a latent z [n, 96] ~ N(0, I), class y [n].

    Each factor is a fixed function of a few coordinates of a rotated z, so that the standard normal
    covers the whole world, small z are plain pictures (centred, natural colours) and the tails are
    rare ones. What the first layer of the generator reads (the first 16 numbers) says where the object
    stands, its colour and the background; the second layer's part is the background's texture,
    the third's the light.
    """
    u = (z.unflatten(1, (-1, CHUNK)) @ _rotation(z.device)).movedim(1, 0)  # [layers, n, 16]
    layout, texture, light = u[0], u[1], u[2]
    cdf = torch.special.ndtr(layout)
    hue = torch.rad2deg(torch.atan2(layout[:, 5], layout[:, 4])) % 360
    strength = torch.sigmoid((layout[:, 4:6].norm(dim=1) - STRONG) / 0.12)
    slack = 0.06
    place = torch.stack(
        [
            (2 * cdf[:, 0] - 1) * slack,
            (2 * cdf[:, 1] - 1) * slack,
            0.8 + 0.08 * cdf[:, 2],
            torch.zeros_like(hue),
            torch.ones_like(hue),
        ],
        -1,
    )
    none, zero = torch.full_like(y, -1), torch.zeros_like(y)
    colour = torch.where(strength > 0.5, nearest_colours(hue)[0], none)
    return Scenes(
        noun=torch.stack([y, none], 1),
        sprite=torch.stack([zero, zero], 1),
        colour=torch.stack([colour, none], 1),
        hue=torch.stack([hue, torch.zeros_like(hue)], 1),
        strength=torch.stack([strength, torch.zeros_like(strength)], 1),
        place=torch.stack([place, place], 1),
        effect=zero,
        background=layout[:, 6 : 6 + len(world.BACKGROUNDS)].argmax(1),
        style=zero,
        relation=none,
        texture=texture,
        horizon=0.45 + 0.3 * cdf[:, 3],
        brightness=0.9 + 0.18 * torch.special.ndtr(light[:, 0]),
    )
