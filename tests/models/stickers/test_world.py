"""The sticker world: the same on every draw, true to its laws, at any size."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers import scenes as law
from fusedream_nb.models.stickers.captions import (
    START,
    VOCABULARY,
    VOCABULARY_SIZE,
    WordTokenizer,
    caption,
    split,
)
from fusedream_nb.models.stickers.scenes import Scenes, held_out, sample_scenes, scenes_from_latent
from fusedream_nb.models.stickers.world import render, tint


def latents(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, law.LATENT_DIM, generator=rng), torch.randint(len(world.NOUNS), (n,), generator=rng)


def pairs(scenes: Scenes, names: tuple[str, ...], values: torch.Tensor) -> set[tuple[str, str]]:
    """The named (value, noun) pairs of the first objects."""
    return {
        (names[v], world.NOUNS[n])
        for v, n in zip(values.tolist(), scenes.noun[:, 0].tolist(), strict=True)
        if v >= 0
    }


def test_one_seed_is_one_picture() -> None:
    a, b = (render(sample_scenes(12, torch.Generator().manual_seed(4))) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == (12, 3, 64, 64)
    assert a.min() >= -1 and a.max() <= 1
    other = render(sample_scenes(12, torch.Generator().manual_seed(5)))
    assert (a - other).abs().mean() > 0.1


def test_a_scene_is_the_same_at_any_size() -> None:
    scenes = sample_scenes(60, torch.Generator().manual_seed(1))
    scenes = scenes[scenes.style == 0]
    small, large = render(scenes, 64), render(scenes, 128)
    assert (F.avg_pool2d(large, 2) - small).abs().mean() < 0.04


def test_the_generators_world_never_shows_a_held_out_pair() -> None:
    scenes = scenes_from_latent(*latents(120_000, 2))
    scenes = scenes[~held_out(scenes)]
    shown = pairs(scenes, world.COLOURS, scenes.colour[:, 0])
    assert not shown & (world.GENERATOR_HELD_OUT | world.ENCODER_HELD_OUT)
    assert len(shown) == 168 - len(world.GENERATOR_HELD_OUT | world.ENCODER_HELD_OUT)
    places = pairs(scenes, tuple(world.BACKGROUNDS), scenes.background)
    assert not places & world.GENERATOR_HELD_OUT_PLACES
    assert len(places) == 280 - len(world.GENERATOR_HELD_OUT_PLACES)


def test_near_a_held_out_hue_no_object_is_shown() -> None:
    """Not even a tint that could be mistaken for the held-out one is there."""
    z, _ = latents(20_000, 3)
    dog = torch.full((len(z),), world.NOUNS.index("dog"))
    scenes = scenes_from_latent(z, dog)
    scenes = scenes[~held_out(scenes)]
    assert len(scenes) > 0.6 * len(z)
    apart = ((scenes.hue[:, 0] - world.HUES["blue"] + 180) % 360 - 180).abs()
    assert scenes.strength[apart < 26, 0].max() <= 0.1
    assert scenes.strength[apart > 40, 0].max() > 0.9


def test_the_encoders_world_holds_its_pairs_out_of_both_objects() -> None:
    scenes = sample_scenes(40_000, torch.Generator().manual_seed(6))
    for which in (0, 1):
        there = (scenes.noun[:, which] >= 0) & (scenes.colour[:, which] >= 0)
        forbidden = law.ENCODER_FORBIDDEN[scenes.colour[there, which], scenes.noun[there, which]]
        assert not forbidden.any()
    shown = pairs(scenes, world.COLOURS, scenes.colour[:, 0])
    assert ("blue", "dog") in shown  # the encoders know what the generator does not


def test_small_latents_are_plain_pictures() -> None:
    z, y = latents(4000, 7)
    wide, narrow = scenes_from_latent(z, y), scenes_from_latent(0.5 * z, y)
    assert narrow.strength.max(1).values.mean() < 0.2 * wide.strength.max(1).values.mean()
    assert narrow.place[:, 0, :2].abs().mean() < wide.place[:, 0, :2].abs().mean()
    assert torch.equal(narrow.background, wide.background)  # an argmax has no scale


def test_the_rotation_of_the_latent_is_orthogonal() -> None:
    q = law._rotation()
    torch.testing.assert_close(q @ q.T, torch.eye(law.LATENT_DIM))


@given(st.floats(0, 360), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_tint_has_its_limits(hue: float, light: float) -> None:
    grey = torch.full((1, 3, 1, 1), light)
    none = tint(grey, torch.tensor([hue]), torch.tensor([0.0]))
    assert torch.equal(none, grey)
    dyed = tint(grey, torch.tensor([hue]), torch.tensor([1.0])).flatten()
    again = tint(grey, torch.tensor([hue + 360]), torch.tensor([1.0])).flatten()
    torch.testing.assert_close(dyed, again, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
def test_primary_tints_are_strongest_in_their_channel(name: str, channel: int) -> None:
    grey = torch.full((1, 3, 1, 1), 0.5)
    dyed = tint(grey, torch.tensor([world.HUES[name]]), torch.tensor([1.0])).flatten()
    assert dyed.argmax() == channel


def test_captions_say_what_is_there() -> None:
    rng = random.Random(0)
    scenes = sample_scenes(300, torch.Generator().manual_seed(8))
    tokenizer = WordTokenizer()
    for i in range(len(scenes)):
        text = caption(scenes, i, rng, full=True)
        words = split(text)
        noun = world.NOUNS[scenes.noun[i, 0]]
        assert set(words) & set(world.SYNONYMS.get(noun, (noun,)))
        if scenes.colour[i, 0] >= 0:
            assert world.COLOURS[scenes.colour[i, 0]] in words
        if scenes.effect[i]:
            assert {"flaming", "burning", "frozen", "icy"} & set(words)
        assert not tokenizer.unknown(text)
        assert not tokenizer.dropped(text)


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_can_be_tokenised(text: str) -> None:
    tokens = WordTokenizer()(text)[0]
    assert tokens[0] == START
    assert (tokens == VOCABULARY_SIZE - 1).sum() == 1
    assert tokens.argmax() == (tokens == VOCABULARY_SIZE - 1).nonzero()[0, 0]  # where open_clip pools
    assert set(WordTokenizer().unknown(text)).isdisjoint(VOCABULARY)


def test_an_unknown_word_is_left_out_and_named() -> None:
    tokenizer = WordTokenizer()
    assert torch.equal(tokenizer("a blue palace dog"), tokenizer("a blue dog"))
    assert tokenizer.unknown("A blue palace, a grand palace dog") == ["palace", "grand"]
