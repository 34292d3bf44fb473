"""The judge's presence: every part of a picture votes, whatever its size and shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from fusedream_nb.models import Models
from fusedream_nb.models.stickers.nouns import NOUNS
from fusedream_nb.models.stickers.presence import Presence, load_presence
from fusedream_nb.models.stickers.scenes import sample_scenes
from fusedream_nb.models.stickers.world import render
from fusedream_nb.notebook.measure import Reader


def singles(n: int) -> tuple[torch.Tensor, list[str]]:
    """Photos of one object, and its noun."""
    scenes = sample_scenes(12 * n, torch.Generator().manual_seed(11))
    plain = (scenes.noun[:, 1] < 0) & (scenes.style == 0) & (scenes.effect == 0)
    scenes = scenes[plain.nonzero()[:n, 0]]
    return render(scenes), [NOUNS[i] for i in scenes.noun[:, 0].tolist()]


def test_a_reader_finds_both_objects_of_a_wide_picture(models: Models) -> None:
    """A vector of the middle, which the cosines are of, has lost both of them."""
    images, names = singles(60)
    wide = torch.cat([images[::2], images[1::2]], 3)
    wanted = [[a, b] for a, b in zip(names[::2], names[1::2], strict=True) if a != b]
    rows = [i for i, (a, b) in enumerate(zip(names[::2], names[1::2], strict=True)) if a != b]
    read = Reader(models.judge, NOUNS)
    found = [read.finds(wide[i : i + 1], pair)[0] for i, pair in zip(rows, wanted, strict=True)]
    read.presence = None
    before = [read.finds(wide[i : i + 1], pair)[0] for i, pair in zip(rows, wanted, strict=True)]
    assert sum(found) >= 0.85 * len(rows) > sum(before)


def test_the_reading_does_not_depend_on_a_pictures_size(models: Models) -> None:
    images, names = singles(40)
    read = Reader(models.judge, NOUNS)
    for side in (64, 128, 256):
        shown = read(interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(-1, 1))
        assert sum(a == b for a, b in zip(shown, names, strict=True)) >= 36


def test_a_picture_and_its_mirror_image_read_the_same(models: Models) -> None:
    presence = models.judge.presence
    assert presence is not None
    images, _ = singles(8)
    torch.testing.assert_close(presence.read(images), presence.read(images.flip(-1)), rtol=0, atol=1e-4)
    assert (presence(images) - presence(images.flip(-1))).abs().max() > 0.01  # one view alone does not


def test_one_cell_that_sees_a_noun_is_enough() -> None:
    network = Presence().eval()
    with torch.no_grad():
        network.votes.weight.zero_()
        network.votes.bias.fill_(-7.0)
        image = torch.zeros(1, 3, 64, 128)
        torch.testing.assert_close(network(image), torch.full((1, len(NOUNS)), 128.0).log() - 7)
    assert network.cells(image).shape == (1, len(NOUNS), 8 * 16)


def test_texts_that_are_not_the_worlds_nouns_are_read_by_cosines(models: Models) -> None:
    assert Reader(models.judge, ["dog", "cat"]).presence is models.judge.presence is not None
    assert Reader(models.judge, ["dog", "aardvark"]).presence is None
    assert Reader(models.judge, ["dog"], ["a blue dog"]).presence is None
    assert Reader(models.clip, ["dog"]).presence is models.clip.presence is None
    images, _ = singles(3)
    few = Reader(models.judge, ["owl", "dog"])
    assert torch.equal(
        few.scores(images),
        Reader(models.judge, NOUNS).scores(images)[:, [NOUNS.index("owl"), NOUNS.index("dog")]],
    )


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    save_file({"votes.weight": torch.zeros(2, 2)}, tmp_path / "presence.safetensors")
    with pytest.raises(ValueError, match="not those of this model"):
        load_presence(tmp_path / "presence.safetensors")
