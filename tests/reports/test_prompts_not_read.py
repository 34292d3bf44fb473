"""A prompt that is not read as it stands is told: cut at the limit, or without a word that is known."""

from __future__ import annotations

import warnings

import pytest
import standins
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedream_nb.models.encoders import Clip

LONG = "a photo of a dog on the grass beside " + "a very " * 80 + "old castle"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A CLIP with the real tokenizer, narrow and at random."""
    folder = tmp_path_factory.mktemp("clip")
    standins.save_clip(folder, standins.clip_config("ViT-B-32-quickgelu"))
    return Clip.from_folder(folder)


@pytest.mark.parametrize("text", [LONG, "🐶 cat " * 40, "word, " * 50, "xq" * 300], ids=range(4))
def test_a_prompt_beyond_77_tokens_says_where_it_is_cut(real: Clip, text: str) -> None:
    with pytest.warns(UserWarning, match=r"reads 75 tokens and ignores the rest, from '"):
        cut = real.encode_text(text)
    with pytest.warns(UserWarning, match="ignores the rest"):
        assert torch.equal(cut, real.encode_text(f"{text} and another end"))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 120))
def test_the_warning_comes_exactly_where_words_are_lost(real: Clip, count: int) -> None:
    text = "dog " * count + f"number {count}"
    tokens = len(real.tokenizer.encode(text))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        real.encode_text(text)
    assert bool(told) == (tokens > 75)


@pytest.mark.parametrize("text", ["🐶", "?!", "…", "-- --", "()"])
def test_a_prompt_without_a_word_is_told(fresh_clip: Clip, text: str) -> None:
    with pytest.warns(UserWarning, match="finds no word in"):
        fresh_clip.encode_text(text)


@pytest.mark.parametrize("text", ["a photo of a blue dog", "A BLUE DOG!", "a dog 🐶"])
def test_a_prompt_that_is_read_is_not_told(fresh_clip: Clip, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh_clip.encode_text(text)
