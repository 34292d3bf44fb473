"""What results are held against: scenes read off words, files of one's own, pictures at two sizes."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fusedream_nb.models import Models
from fusedream_nb.models.pictures import file_name, real_things, two_sizes
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.captions import caption
from fusedream_nb.models.stickers.reading import scene_of
from fusedream_nb.models.stickers.scenes import sample_scenes


def test_a_caption_leads_back_to_its_scene(rng: torch.Generator) -> None:
    scenes, words = sample_scenes(300, rng), random.Random(0)
    for i in (scenes.noun[:, 1] < 0).nonzero()[:, 0].tolist():
        text = caption(scenes, i, words, full=True)
        scene = scene_of(text, rng)
        assert scene.noun.tolist() == [[int(scenes.noun[i, 0]), -1]], text
        for name in ("colour", "effect", "background", "style"):
            mine, theirs = (getattr(s, name).flatten()[0] for s in (scene, scenes[torch.tensor([i])]))
            assert mine == theirs, f"{name} of {text}"


def test_what_a_text_leaves_open_is_a_plain_photo(rng: torch.Generator) -> None:
    scene = scene_of("A Bunny!", rng)
    assert world.NOUNS[int(scene.noun[0, 0])] == "rabbit"
    assert (scene.colour == -1).all() and scene.strength.sum() == 0
    assert scene.effect == 0 and scene.style == 0
    with pytest.raises(ValueError, match="'a photo of a spoon' names nothing"):
        scene_of("a photo of a spoon", rng)


@torch.no_grad()
def test_the_renderers_picture_is_the_real_thing_of_the_stickers(models: Models) -> None:
    prompts = ["a photo of a yellow elephant on white", "a photo of a church at night"]
    real = real_things(models, prompts)
    assert list(real) == prompts
    yellow, night = real.values()
    assert yellow.shape == (3, 64, 64)
    assert yellow[:, 0, 0].min() > 0.7 and night[:, 0, 0].max() < 0
    assert yellow[2, 24:40, 24:40].mean() < yellow[:2, 24:40, 24:40].mean() - 0.3  # little blue in yellow


def test_elsewhere_it_is_a_file_that_is_cropped_to_a_square(models: Models, tmp_path: Path) -> None:
    assert file_name("A photo of MIT.") == "a-photo-of-mit"
    wide = Image.new("RGB", (300, 100), (0, 0, 255))
    wide.paste((255, 0, 0), (100, 0, 200, 100))
    wide.save(tmp_path / "a-photo-of-mit.png")
    real = real_things(replace(models, world=""), ["A photo of MIT.", "A photo of the Louvre."], tmp_path)
    (picture,) = real.values()
    red = torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1)
    torch.testing.assert_close(picture[:, :, 4:-4], red.expand(3, 64, 56))  # Lanczos rings at the blue
    assert real_things(replace(models, world=""), ["A photo of MIT."]) == {}


@torch.no_grad()
@pytest.mark.parametrize(("name", "side"), [("sticker world", 64), ("", 16)])
def test_two_sizes_show_one_picture(models: Models, rng: torch.Generator, name: str, side: int) -> None:
    small, large = two_sizes(replace(models, world=name), 3, rng)
    assert small.shape == (3, 3, side, side) and large.shape == (3, 3, 4 * side, 4 * side)
    shrunk = F.avg_pool2d(large, 4)
    assert (shrunk - small).abs().mean() < 0.3 * (shrunk.flip(0) - small).abs().mean()
