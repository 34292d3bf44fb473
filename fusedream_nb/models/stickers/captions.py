"""Words for scenes: the grammar of captions, the vocabulary, and a tokenizer of whole words."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from . import nouns as world
from .scenes import Scenes

CONTEXT_LENGTH = 20  # tokens, with the start and the end
PAD, START = 0, 1


def caption(scenes: Scenes, index: int, rng: random.Random, *, full: bool = False) -> str:
    """Describe one scene in words; with ``full``, leave nothing out that the scene has.

    Styles other than a photo are always named, and so is the second object; a scene without any is
    "nothing on the beach".
    """
    style = list(world.STYLES)[int(scenes.style[index])]
    there = scenes.noun[index, 0] >= 0
    first = _object(scenes, index, 0, rng, full) if there else rng.choice(world.NOTHING)
    words = [rng.choice(world.STYLES[style]), first]
    if scenes.noun[index, 1] >= 0:
        relation = list(world.RELATIONS)[int(scenes.relation[index])]
        words += [rng.choice(world.RELATIONS[relation]), _object(scenes, index, 1, rng, full)]
    if full or not there or rng.random() < 0.65:
        background = list(world.BACKGROUNDS)[int(scenes.background[index])]
        words.append(rng.choice(world.BACKGROUNDS[background]))
    return " ".join(word for word in words if word)


def _object(scenes: Scenes, index: int, which: int, rng: random.Random, full: bool) -> str:
    """Describe one object: article, effect, colour and noun."""
    name = world.NOUNS[int(scenes.noun[index, which])]
    words = [rng.choice(world.SYNONYMS.get(name, (name,)))]
    colour = int(scenes.colour[index, which])
    if colour >= 0 and (full or rng.random() < 0.75):
        words.insert(0, world.COLOURS[colour])
    if which == 0 and scenes.effect[index] > 0 and (full or rng.random() < 0.95):
        words.insert(0, rng.choice(world.EFFECTS[list(world.EFFECTS)[int(scenes.effect[index])]]))
    phrase = " ".join(words)
    return article(phrase) if rng.random() < 0.85 else phrase


def article(words: str) -> str:
    """Put a or an before words."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def split(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def _words(phrases: Iterable[str]) -> set[str]:
    return {word for phrase in phrases for word in split(phrase)}


def _vocabulary() -> tuple[str, ...]:
    groups = [world.BACKGROUNDS, world.STYLES, world.EFFECTS, world.RELATIONS, world.SYNONYMS]
    phrases = [phrase for group in groups for options in group.values() for phrase in options]
    first = _words([*phrases, *world.NOUNS, *world.COLOURS, "a", "an"])
    later = _words([*world.NOTHING, *world.FORMLESS, "and"]) - first
    return (*sorted(first), *sorted(later))  # new words stand last: older encoders keep their ids


VOCABULARY = _vocabulary()
VOCABULARY_SIZE = START + 1 + len(VOCABULARY) + 1  # padding, the start, the words, the end


class WordTokenizer:
    """Texts → token ids [n, context_length], zero-padded: start, one id a known word, end.

    ``size`` is the number of ids of the encoder, whose last one is the end: open_clip pools the text
    where the largest id is. An encoder of fewer ids knows the first words of the vocabulary.
    """

    context_length = CONTEXT_LENGTH

    def __init__(self, size: int = VOCABULARY_SIZE) -> None:
        self.end = size - 1
        self.ids = {word: START + 1 + i for i, word in enumerate(VOCABULARY[: self.end - START - 1])}

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Tokenise texts; unknown words are left out (:meth:`unknown` names them)."""
        rows = [texts] if isinstance(texts, str) else list(texts)
        out = torch.full((len(rows), self.context_length), PAD)
        for row, text in zip(out, rows, strict=True):
            known = [self.ids[word] for word in split(text) if word in self.ids]
            tokens = [START, *known[: self.context_length - 2], self.end]
            row[: len(tokens)] = torch.tensor(tokens)
        return out

    def unknown(self, text: str) -> list[str]:
        """Return the words of a text that the vocabulary lacks, in order, each once."""
        return list(dict.fromkeys(word for word in split(text) if word not in self.ids))

    def dropped(self, text: str) -> list[str]:
        """Return the known words of a text that do not fit in the context length."""
        return [word for word in split(text) if word in self.ids][self.context_length - 2 :]
