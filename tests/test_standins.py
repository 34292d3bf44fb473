"""Stand-ins have the interface of the released models: names, sizes, classes, tokens; gradients flow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import standins
import torch

import fusedream_nb as fd
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.upscaler import load_upscaler
from fusedream_nb.models.weights import CLIP, JUDGE, entry

INTERFACE = {  # pixels, z of a picture, y
    "biggan-256": (256, (140,), 128),
    "biggan-512": (512, (128,), 128),
    "biggan-deep-256": (256, (128,), 128),
    "vqgan-imagenet-16384": (256, (256, 16, 16), None),
    "vqgan-wikiart": (256, (256, 16, 16), None),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stand-ins, in a cache of their own."""
    folder = tmp_path_factory.mktemp("cache")
    standins.build(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEDREAM_CACHE", str(store))


@pytest.mark.parametrize("name", INTERFACE)
def test_they_load_by_name_and_are_what_their_names_say(name: str, rng: torch.Generator) -> None:
    models = fd.load(name, device="cpu")
    size, z, y = INTERFACE[name]
    assert (models.name, models.world, models.generator.size) == (name, "", size)
    latent = models.generator.sample(1, rng)
    assert latent.z.shape[1:] == z and (None if latent.y is None else latent.y.shape[1]) == y
    names = models.generator.class_names
    assert (len(names), [*names[:1]]) == ((1000, ["tench"]) if y else (0, []))
    with torch.no_grad():
        image = models.generator.decode(latent)
    assert image.shape == (1, 3, size, size) and image.std() > 0.05
    assert (models.clip.name, models.judge.name) == (CLIP, JUDGE)


@pytest.mark.parametrize(("name", "dim"), [(CLIP, 512), (JUDGE, 512), ("RN50/openai", 1024)])
def test_clips_read_224_pixels_and_77_tokens_by_the_real_tokenizer(name: str, dim: int) -> None:
    row = entry(name)
    assert row.here
    clip = Clip.from_folder(row.folder, name=name)
    assert (clip.size, clip.dim) == (224, dim)
    tokens = clip.tokenizer(["a photo of a dog"])
    assert tokens.shape == (1, 77) and tokens[0, :7].tolist() == [49406, 320, 1125, 539, 320, 1929, 49407]
    long = "a dog on the grass and " * 20 + "a castle"
    with pytest.warns(UserWarning, match=r"reads 75 tokens and ignores the rest, from '.*dog"):
        clip.encode_text(long)


def test_fusedream_transport_and_a_composition_take_steps_on_them() -> None:
    sizes = replace(fd.budget("quick"), M=2, k=1, steps=1, copies=1, start_copies=1, judged_copies=1)
    models = fd.load("biggan-256", device="cpu")
    first, last = fd.fusedream("a dog", models, budget=sizes)
    assert not torch.equal(first.image, last.image) and torch.isfinite(last.score).all()
    one = fd.Placement.at(0.5, "left", "top")
    pair = fd.compose("a dog and a house", models, placements=one, budget=sizes)
    assert [step.index for step in pair] == [0, 1]
    grid = fd.load("vqgan-imagenet-16384", device="cpu", canvas=(64, 64))
    assert [step.index for step in fd.transport(["a dog", "a house"], grid, budget=sizes)] == [0, 1]


def test_real_esrgan_is_what_spandrel_knows() -> None:
    pytest.importorskip("spandrel")
    upscaler = load_upscaler(fd.load("biggan-256", device="cpu"))
    assert upscaler(torch.zeros(2, 3, 8, 12)).shape == (2, 3, 32, 48)
