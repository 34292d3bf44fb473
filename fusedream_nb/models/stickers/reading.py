"""From words to a scene that they describe, and from a picture to the words that an encoder reads in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fusedream_nb.models.encoders import Clip

from . import nouns as world
from .captions import article, split
from .scenes import Scenes, sample_scenes

_NAMES = {noun: world.SYNONYMS.get(noun, (noun,)) for noun in world.NOUNS}
_STRENGTH = 0.92  # of a colour that is asked for


def scene_of(text: str, rng: torch.Generator) -> Scenes:
    """Draw one scene with the object, colour, effect, background and style that a text names.

    What the text leaves open is drawn as :func:`sample_scenes` does; no style means a photo, no effect
    and no colour mean none. Pairs that are held out from every model are no exception here: the
    renderer can draw them. Raises ValueError for a text that names no object of the world.
    """
    noun = _find(text, _NAMES)
    if noun is None:
        raise ValueError(f"'{text}' names nothing that the sticker world has.")
    many = sample_scenes(64, rng)
    alone = (many.noun[:, 1] < 0).nonzero()[:1, 0]
    scene = many[alone]
    colour = _find(_without_places(text), {name: (name,) for name in world.COLOURS})
    hue, strength = (0.0, 0.0) if colour is None else (list(world.HUES.values())[colour], _STRENGTH)
    first = torch.tensor([[True, False]])
    where = _find(text, world.BACKGROUNDS)
    return replace(
        scene,
        noun=torch.tensor([[noun, -1]]),
        sprite=torch.zeros_like(scene.sprite),
        colour=torch.where(first, -1 if colour is None else colour, -1),
        hue=torch.where(first, hue, scene.hue),
        strength=torch.where(first, strength, 0.0),
        effect=torch.tensor([_find(text, world.EFFECTS) or 0]),
        background=scene.background if where is None else torch.tensor([where]),
        style=torch.tensor([_find(text, world.STYLES) or 0]),
    )


def _without_places(text: str) -> str:
    """Return a text without its backgrounds, of which one is "the blue sky"."""
    words = " ".join(split(text))
    for phrase in (phrase for phrases in world.BACKGROUNDS.values() for phrase in phrases):
        words = words.replace(phrase, "")
    return words


def _find(text: str, phrases: Mapping[str, Sequence[str]]) -> int | None:
    """Return which entry's phrase stands in a text, the longest one if there are several."""
    words = f" {' '.join(split(text))} "
    found = [
        (len(phrase), -i)
        for i, options in enumerate(phrases.values())
        for phrase in options
        if phrase and f" {phrase} " in words
    ]
    return -max(found)[1] if found else None


@torch.no_grad()
def features(clip: Clip, image: Tensor, chunk: int = 250) -> Tensor:
    """Return the unit vectors [n, dim] of many images."""
    return torch.cat([clip.encode_image(part) for part in image.split(chunk)])


def read_nouns(clip: Clip, vectors: Tensor) -> Tensor:
    """Return the cosines [n, nouns] of image vectors with "a photo of a NOUN"."""
    return vectors @ clip.encode_text([f"a photo of {article(noun)}" for noun in world.NOUNS]).T


@torch.no_grad()
def read_pairs(clip: Clip, image: Tensor) -> Tensor:
    """Return the best (colour, noun) [n] of all pairs in images [n, 3, h, w], as colour * nouns + noun.

    With a presence it names the noun, and the cosines choose among that noun's colours.
    """
    pairs = [f"a photo of {article(f'{c} {n}')}" for c in world.COLOURS for n in world.NOUNS]
    cosines = features(clip, image) @ clip.encode_text(pairs).T
    if clip.presence is None:
        return cosines.argmax(1)
    noun = clip.presence.read(image).argmax(1).to(cosines.device)
    rows = torch.arange(len(noun), device=noun.device)
    return cosines.view(len(noun), -1, len(world.NOUNS))[rows, :, noun].argmax(1) * len(world.NOUNS) + noun
