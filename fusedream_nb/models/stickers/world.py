"""The renderer of the sticker world: scenes in, pictures out, at any size."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from . import nouns as world
from .scenes import SPRITES, TEXTURE_DIM, Scenes

CPU = torch.device("cpu")
RED_GREEN_BLUE = (0.3, 0.59, 0.11)  # luminance of sRGB


@cache
def sprite_sheet(size: int, device: torch.device) -> Tensor:
    """Return every sprite [nouns, 2, 4, size, size], Fluent and Noto, as premultiplied RGBA in [0, 1]."""
    table = torch.zeros(len(world.NOUNS), SPRITES, 4, size, size)
    for which, name in enumerate(("fluent", "noto")):
        sheet = Image.open(world.SHEETS[name]).convert("RGBA")
        cell = sheet.width // world.COLUMNS
        for i in range(len(world.NOUNS)):
            x, y = i % world.COLUMNS * cell, i // world.COLUMNS * cell
            sprite = sheet.crop((x, y, x + cell, y + cell)).resize((size, size), Image.Resampling.LANCZOS)
            rgba = torch.from_numpy(np.array(sprite)).permute(2, 0, 1).float() / 255
            table[i, which] = torch.cat([rgba[:3] * rgba[3:], rgba[3:]])
    return table.to(device)


@torch.no_grad()
def render(scenes: Scenes, size: int = 64, chunk: int = 128, device: torch.device = CPU) -> Tensor:
    """Draw scenes as pictures [n, 3, size, size] in [-1, 1] on a device.

    The scenes stay on the CPU: what is drawn together is chosen there, so a GPU never waits for an answer.
    """
    parts = [_render(scenes[i : i + chunk], size, device) for i in range(0, len(scenes), chunk)]
    return torch.cat(parts) if parts else torch.empty(0, 3, size, size, device=device)


def _render(scenes: Scenes, size: int, device: torch.device) -> Tensor:
    texture, horizon = scenes.texture.to(device), scenes.horizon.to(device)
    picture = texture.new_empty(len(scenes), 3, size, size)
    for index, name in enumerate(world.BACKGROUNDS):
        if len(rows := _rows(scenes.background == index, device)):
            picture[rows] = _background(name, texture[rows], horizon[rows], size).clamp(0, 1)
    for which in (1, 0):  # the first object of the caption lies in front
        if (there := scenes.noun[:, which] >= 0).any():
            rows = _rows(there, device)
            picture[rows] = _paste(picture[rows], scenes[there], which, size)
    picture = (picture * scenes.brightness.to(device).view(-1, 1, 1, 1)).clamp(0, 1)
    for index in range(1, len(world.STYLES)):
        if len(rows := _rows(scenes.style == index, device)):
            picture[rows] = STYLE_FILTERS[index](picture[rows], texture[rows])
    return picture.clamp(0, 1) * 2 - 1


def _rows(chosen: Tensor, device: torch.device) -> Tensor:
    return chosen.nonzero()[:, 0].to(device)


def _paste(picture: Tensor, scenes: Scenes, which: int, size: int) -> Tensor:
    """Paste one object of each scene onto pictures [n, 3, size, size] in [0, 1]."""
    device = picture.device
    noun, sprite = scenes.noun[:, which].to(device), scenes.sprite[:, which].to(device)
    rgba = _warp(sprite_sheet(size, device)[noun, sprite], scenes.place[:, which].to(device), size)
    alpha = rgba[:, 3:]
    hue, strength = scenes.hue[:, which].to(device), scenes.strength[:, which].to(device)
    colour = tint(rgba[:, :3] / alpha.clamp(min=1e-3), hue, strength)
    if which == 0 and (scenes.effect > 0).any():
        texture, effect = scenes.texture.to(device), scenes.effect.to(device)
        picture, colour, alpha = _effects(picture, colour, alpha, texture, effect)
    return picture * (1 - alpha) + colour.clamp(0, 1) * alpha


def _warp(sprite: Tensor, place: Tensor, size: int) -> Tensor:
    """Place sprites [n, 4, s, s] on an empty canvas, supersampled twice in each direction."""
    x, y, scale, turn, mirror = place.unbind(-1)
    cos, sin = torch.cos(turn) / scale, torch.sin(turn) / scale
    theta = torch.stack(
        [
            torch.stack([cos * mirror, sin * mirror, -(cos * x + sin * y) * mirror], -1),
            torch.stack([-sin, cos, sin * x - cos * y], -1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [len(sprite), 4, 2 * size, 2 * size], align_corners=False)
    return F.avg_pool2d(F.grid_sample(sprite, grid, align_corners=False), 2)


def _light(rgb: Tensor) -> Tensor:
    """Return the luminance [n, 1, h, w] of pictures [n, 3, h, w]."""
    return (rgb * _rgb(*RED_GREEN_BLUE, like=rgb)).sum(1, keepdim=True)


def tint(rgb: Tensor, hue: Tensor, strength: Tensor) -> Tensor:
    """Dye pictures [n, 3, h, w] in [0, 1] with hues [n] in degrees, keeping light and shade."""
    turns = torch.tensor([0.0, 120.0, 240.0], device=rgb.device)
    base = 0.5 + 0.5 * torch.cos((hue[:, None] - turns) * (math.pi / 180))
    base = (base / base.amax(1, keepdim=True))[:, :, None, None]
    light = _light(rgb).clamp(0, 1)
    dark = base * light * 1.8
    pale = 0.9 * base + (1 - base) * (2 * light - 1) * 0.75 + 0.1 * light
    dyed = torch.where(light < 0.5, dark, pale)
    s = 0.88 * strength.view(-1, 1, 1, 1)
    return rgb * (1 - s) + dyed * s


def _effects(
    picture: Tensor, colour: Tensor, alpha: Tensor, texture: Tensor, effect: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Set the objects with effect 1 on fire, and freeze those with effect 2."""
    size = picture.shape[-1]
    fire, ice = ((effect == i).view(-1, 1, 1, 1).float() for i in (1, 2))
    rough = _noise(texture, size, (8, 16)) * 0.5
    reach = max(2, round(0.2 * size))
    # The mean over the pixels below: flames lick upwards from the object.
    below = F.avg_pool2d(F.pad(alpha, (2, 2, 0, reach)), (reach + 1, 5), stride=1)
    flame = (below * 2.6 * (0.75 + rough)).clamp(0, 1)
    heat = torch.cat([torch.ones_like(flame), 0.25 + 0.75 * flame, 0.1 + 0.25 * flame**2], 1)
    wide = 2 * max(1, round(0.05 * size)) + 1
    halo = F.avg_pool2d(F.max_pool2d(alpha, wide, 1, wide // 2), 3, 1, 1) * (0.8 + 0.3 * rough)
    around, glow = (
        fire * flame + ice * halo.clamp(0, 1),
        fire * heat + ice * _rgb(0.78, 0.93, 1.0, like=colour),
    )
    picture = picture * (1 - around) + glow * around
    light = _light(colour)
    burnt = (0.45 * colour + 0.55 * light * _rgb(1.5, 0.8, 0.25, like=colour)).clamp(0, 1)
    burnt = burnt + flame * (rough > 0.25) * (heat - burnt) * 0.8
    iced = 0.4 * colour + 0.6 * (0.35 + 0.65 * light) * _rgb(0.75, 0.95, 1.1, like=colour)
    iced = iced + (rough > 0.55) * 0.3
    colour = colour * (1 - fire - ice) + fire * burnt + ice * iced
    return picture, colour, alpha


@cache
def _pattern(rows: int, seed: int, device: torch.device) -> Tensor:
    """Return a fixed random matrix [16, rows] of norm-one columns: 16 numbers make a texture."""
    p = torch.randn(TEXTURE_DIM, rows, generator=torch.Generator().manual_seed(seed))
    return (p / p.norm(dim=0)).to(device)


def _noise(texture: Tensor, size: int, octaves: tuple[int, ...] = (4, 8, 16)) -> Tensor:
    """Return smooth noise [n, 1, size, size], roughly standard normal, from textures [n, 16]."""
    out = texture.new_zeros(len(texture), 1, size, size)
    for i, cells in enumerate(octaves):
        grid = (texture @ _pattern(cells * cells, cells, texture.device)).view(-1, 1, cells, cells)
        grid = F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=False)
        out += grid / (i + 1)
    return out


@cache
def _specks(size: int, seed: int, device: torch.device) -> Tensor:
    """Return 90 soft specks [90, size, size] at fixed places: stars, snowflakes, bubbles."""
    xy = torch.rand(90, 2, 1, 1, generator=torch.Generator().manual_seed(seed))
    axis = (torch.arange(size) + 0.5) / size
    apart = (axis.view(1, 1, -1) - xy[:, 0]) ** 2 + (axis.view(1, -1, 1) - xy[:, 1]) ** 2
    return torch.exp(-apart / (2 * 0.009**2)).to(device)


def _speckle(texture: Tensor, size: int, seed: int, keep: float) -> Tensor:
    """Return the specks [n, 1, size, size] that a texture lights."""
    lit = (texture @ _pattern(90, seed, texture.device) - keep).clamp(0, 1)
    return (lit @ _specks(size, seed, texture.device).flatten(1)).view(-1, 1, size, size).clamp(0, 1)


def _rgb(red: float, green: float, blue: float, *, like: Tensor) -> Tensor:
    return _colour(red, green, blue, like.device)


@cache
def _colour(red: float, green: float, blue: float, device: torch.device) -> Tensor:
    return torch.tensor([red, green, blue], device=device).view(1, 3, 1, 1)


def _background(name: str, t: Tensor, horizon: Tensor, size: int) -> Tensor:
    """Draw one kind of background [n, 3, size, size] in [0, 1] of textures t [n, 16] and horizons [n]."""
    n = len(t)
    down = ((torch.arange(size, device=t.device) + 0.5) / size).view(1, 1, size, 1).expand(n, 1, size, size)
    across = down.transpose(2, 3)
    rough = _noise(t, size) * 0.5
    edge = horizon.view(-1, 1, 1, 1)
    ground = ((down - edge) * size).clamp(0, 1)
    sky = _rgb(0.33, 0.6, 0.95, like=t) * (1 - down) + _rgb(0.74, 0.87, 1.0, like=t) * down
    if name == "white":
        return _rgb(0.97, 0.97, 0.97, like=t) - 0.03 * down
    if name == "black":
        return _rgb(0.04, 0.04, 0.05, like=t) + 0.05 * (1 - down)
    if name == "sky":
        cloud = (rough * 1.6 - 0.1).clamp(0, 1)
        return sky * (1 - cloud) + 0.98 * cloud
    if name == "night":
        dusk = _rgb(0.02, 0.03, 0.14, like=t) * (1 - down) + _rgb(0.13, 0.08, 0.32, like=t) * down
        return dusk + _speckle(t, size, 3, 0.2)
    if name == "grass":
        blades = _noise(t, size, (16, 32)) * 0.5
        return sky * (1 - ground) + (_rgb(0.27, 0.62, 0.2, like=t) + 0.09 * blades) * ground
    if name == "beach":
        shore = ((down - edge - 0.12) * size).clamp(0, 1)
        sea = _rgb(0.08, 0.42, 0.72, like=t) + 0.05 * rough
        sand = _rgb(0.93, 0.82, 0.56, like=t) + 0.04 * rough
        return sky * (1 - ground) + (sea * (1 - shore) + sand * shore) * ground
    if name == "snow":
        land = (
            _rgb(0.66, 0.75, 0.87, like=t) * (1 - ground)
            + (_rgb(0.95, 0.97, 1.0, like=t) + 0.02 * rough) * ground
        )
        return land + 0.4 * _speckle(t, size, 5, 0.0)
    if name == "water":
        deep = _rgb(0.08, 0.58, 0.82, like=t) * (1 - down) + _rgb(0.01, 0.14, 0.42, like=t) * down
        rays = torch.sin(9 * (across - 0.4 * down) + 2 * rough) * (1 - down)
        return deep + 0.06 * rays + 0.35 * _speckle(t, size, 6, 0.8)
    if name == "sunset":
        glow = _rgb(0.98, 0.6, 0.22, like=t) * down + _rgb(0.45, 0.2, 0.5, like=t) * (1 - down)
        sun = torch.exp(-((across - 0.5 - 0.1 * t[:, :1, None, None]) ** 2 + (down - edge) ** 2) / 0.02)
        return (glow + 0.35 * sun) * (1 - ground) + (_rgb(0.3, 0.13, 0.22, like=t) + 0.04 * rough) * ground
    return _forest(t, down, across, rough)


def _forest(texture: Tensor, down: Tensor, across: Tensor, rough: Tensor) -> Tensor:
    """Draw trunks before dark leaves."""
    leaves = _rgb(0.07, 0.24, 0.11, like=down) + _rgb(0.05, 0.11, 0.04, like=down) * rough
    phase = texture[:, :3, None, None]
    trunks = torch.zeros_like(down)
    for i, width in enumerate((0.035, 0.05, 0.028)):
        centre = 0.5 + 0.5 * torch.tanh(phase[:, i : i + 1] * 0.8 + (i - 1) * 0.9)
        trunks = torch.maximum(trunks, (1.5 - (across - centre).abs() / width).clamp(0, 1))
    floor = ((down - 0.82) * 12).clamp(0, 1)
    picture = leaves * (1 - trunks) + _rgb(0.26, 0.16, 0.09, like=down) * trunks
    return picture * (1 - floor) + (_rgb(0.2, 0.25, 0.09, like=down) + 0.03 * rough) * floor


def _sketch(picture: Tensor, texture: Tensor) -> Tensor:
    light = _light(picture)
    padded = F.pad(light, (1, 1, 1, 1), mode="replicate")
    dx, dy = padded[:, :, 1:-1, 2:] - light, padded[:, :, 2:, 1:-1] - light
    lines = ((dx**2 + dy**2).sqrt() * 4 - 0.12).clamp(0, 0.9)
    return (0.96 - lines - 0.12 * (1 - light)).expand(-1, 3, -1, -1)


def _watercolour(picture: Tensor, texture: Tensor) -> Tensor:
    size = picture.shape[-1]
    wide = 2 * max(1, round(size / 32)) + 1
    soft = F.avg_pool2d(F.pad(picture, [wide // 2] * 4, mode="replicate"), wide, 1)
    rim = (soft - picture).abs().mean(1, keepdim=True)
    paper = 0.06 * _noise(texture, size, (16, 32))
    return 1 - (1 - soft) * (0.62 + paper) - 0.5 * rim


def _mosaic(picture: Tensor, texture: Tensor) -> Tensor:
    size = picture.shape[-1]
    cell = max(2, size // 16)
    tiles = F.interpolate(F.avg_pool2d(picture, cell), scale_factor=cell, mode="nearest")
    lines = torch.arange(size, device=picture.device) % cell < max(1, cell // 4)
    grout = (lines[None, :] | lines[:, None]).float()
    return tiles * (1 - grout) + (0.55 * tiles + 0.08) * grout


def _monochrome(picture: Tensor, texture: Tensor) -> Tensor:
    return _light(picture).expand(-1, 3, -1, -1)


def _pixel_art(picture: Tensor, texture: Tensor) -> Tensor:
    cell = max(2, picture.shape[-1] // 16)
    return F.interpolate((F.avg_pool2d(picture, cell) * 5).round() / 5, scale_factor=cell, mode="nearest")


STYLE_FILTERS = {1: _sketch, 2: _watercolour, 3: _mosaic, 4: _monochrome, 5: _pixel_art}
