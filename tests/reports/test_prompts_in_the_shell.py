"""Prompts with colons and canvases: what is a weight, and what is width."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fusedream_nb as fd
from fusedream_nb.cli import main
from fusedream_nb.cli.generate_command import _canvas, _weighted
from fusedream_nb.models.vqgan import VQGAN

WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Nd", "Zs", "Cc"], exclude_characters=":\\"), min_size=1
)
NUMBERS = st.floats(0.25, 99.75).map(lambda x: round(x, 2))


@given(st.lists(st.tuples(WORDS, NUMBERS | st.none()), min_size=1))
def test_a_weight_is_what_follows_the_last_colon_without_a_space(rows) -> None:
    texts, weights = _weighted([text if w is None else f"{text}:{w}" for text, w in rows])
    assert texts == [text for text, _ in rows]
    assert weights == ([w or 1.0 for _, w in rows] if any(w for _, w in rows) else None)


@given(WORDS, st.integers(0, 24), st.integers(0, 99), st.integers(100, 10**9))
def test_other_colons_belong_to_the_words(text: str, hour: int, minute: int, large: int) -> None:
    kept = [
        f"{text} at {hour}:{minute}", f"{text}: {minute}", f"{text}::{minute}", f"{hour}:{minute}", ":2",
        f"{text}:", f"{text}:{large}", f"{text}:{minute}x", f'"{text}:{minute}"', f"{text}:{minute} ",
    ]  # fmt: skip
    assert _weighted(kept) == (kept, None)
    assert _weighted([f"{text}\\:{minute}"]) == ([f"{text}:{minute}"], None)
    assert _weighted([f"{text}\\:{minute}s:3"]) == ([f"{text}:{minute}s"], [3.0])


def test_the_weights_in_force_are_printed(capsys) -> None:
    assert _weighted(["a clock at 12:30", "🐶:1", "c:.5"], 1) == (
        ["a clock at 12:30", "🐶", "c"], [1.0, 1.0, 0.5, 1.0]
    )  # fmt: skip
    assert "a clock at 12:30 1, 🐶 1, c 0.5" in capsys.readouterr().err


@given(st.integers(0, 5000), st.integers(0, 5000), st.sampled_from("xX×"), st.sampled_from(["", " "]))
def test_a_canvas_is_width_by_height(width: int, height: int, by: str, space: str) -> None:
    assert _canvas(f"{space}{width}{by}{height}{space}") == [height, width]


@pytest.mark.parametrize("canvas", ["501x300", "300X501", "0x64", "9x12"])
def test_a_canvas_that_does_not_fit_says_width_by_height(capsys, canvas: str) -> None:
    assert main(["generate", "a dog", "--transport", "--canvas", canvas, "--device", "cpu"]) == 2
    assert f"not {canvas.lower().replace('x', ' × ')} (width × height)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "canvas", ["128", "128x", "x96", "128x96x3", "-8x8", "8.5x8", "128 by 96", "", f"{10**20}x64"]
)
def test_what_is_no_canvas_is_a_sentence(capsys, canvas: str) -> None:
    assert main(["generate", "a dog", "--transport", f"--canvas={canvas}", "--device", "cpu"]) == 2
    assert re.search(r"A canvas is WIDTHxHEIGHT in pixels, such as 128x96, not '", capsys.readouterr().err)


def test_a_canvas_that_fits_is_that_of_the_picture() -> None:
    models = fd.load("stickers/vqgan", device="cpu", canvas=tuple(_canvas("96X64")))
    assert isinstance(models.generator, VQGAN)
    latent = models.generator.sample(1, torch.Generator().manual_seed(0))
    assert models.generator.decode(latent).shape[-2:] == (64, 96)
