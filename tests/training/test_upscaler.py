"""The upscaler's training: its pictures at two sizes, its blur, a run of seconds."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fusedream_nb.models import Models
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.scenes import Scenes, sample_scenes, sharp_scenes
from fusedream_nb.models.stickers.world import render
from fusedream_nb.models.upscaler import ResidualCNN, Upscaler, bicubic, load_upscaler
from fusedream_nb.models.weights import STICKERS
from training import report
from training.data import blur
from training.generator import begun
from training.networks import UPSCALER_CONFIG
from training.pack import pack
from training.upscaler import _Pairs, soften, train_upscaler

pytestmark = pytest.mark.heavy
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs() -> _Pairs:
    """Three pairs of the renderer's."""
    return _Pairs(3, begun(STICKERS / "generator"), torch.Generator().manual_seed(0), CPU)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs with an upscaler of a few seconds in it."""
    runs = tmp_path_factory.mktemp("runs")
    weights = train_upscaler(runs / "upscaler", 0.03, CPU, pool=2, batch=2)
    torch.save(weights, runs / "upscaler" / "weights.pt")
    return runs


def test_sharp_scenes_differ_from_the_worlds_only_in_what_has_no_larger_picture() -> None:
    theirs, ours = (law(300, torch.Generator().manual_seed(3)) for law in (sample_scenes, sharp_scenes))
    assert not (ours.style == list(world.STYLES).index("sketch")).any()
    assert not ours.sprite.any()
    same = [f.name for f in fields(Scenes) if f.name not in ("style", "sprite")]
    assert all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in same)
    assert len(ours.style.unique()) == len(world.STYLES) - 1


def test_crops_of_the_two_sizes_show_the_same_place(pairs: _Pairs) -> None:
    small, large = pairs.crops(12, 32)
    assert small.shape == (12, 3, 32, 32) and large.shape == (12, 3, 128, 128)
    shrunk = F.avg_pool2d(large, 4)
    there = (shrunk - small).abs().mean()
    elsewhere = (shrunk[..., 1:] - small[..., :-1]).abs().mean()
    assert there < 0.5 * elsewhere


def test_the_renderer_draws_one_scene_at_both_sizes() -> None:
    scenes = sharp_scenes(6, torch.Generator().manual_seed(1))
    small, large = render(scenes, 64), render(scenes, 256, chunk=2)
    assert report.psnr(F.avg_pool2d(large, 4), small).min() > 25


def test_a_blur_is_a_gaussian_of_its_width_and_none_at_zero(rng: torch.Generator) -> None:
    image = torch.rand(3, 3, 15, 15, generator=rng)
    still = torch.zeros(3)
    torch.testing.assert_close(blur(image, still), image)
    point = torch.zeros(1, 1, 15, 15)
    point[..., 7, 7] = 1
    spread = blur(point, torch.tensor([0.8]))[0, 0]
    apart = (torch.arange(15.0) - 7).square()
    torch.testing.assert_close(spread.sum(), torch.tensor(1.0))
    # The deviation across is 0.8 pixels, but for what lies more than three pixels off.
    torch.testing.assert_close((spread.sum(0) * apart).sum(), torch.tensor(0.64), atol=0.01, rtol=0)
    flat = torch.full((1, 3, 8, 8), 0.4)
    torch.testing.assert_close(blur(flat, torch.tensor([1.0])), flat)


def test_some_pictures_stay_sharp(rng: torch.Generator) -> None:
    image = torch.rand(200, 3, 8, 8, generator=rng)
    same = torch.isclose(soften(image, rng), image, atol=1e-5).all(3).all(2).all(1).float().mean()
    assert 0.25 < same < 0.65  # two fifths, and the narrowest blurs


def test_training_reduces_the_loss_below_bicubics(pairs: _Pairs) -> None:
    torch.manual_seed(0)
    network = ResidualCNN(width=8, blocks=1)
    adam = torch.optim.Adam(network.parameters(), lr=1e-2)
    small, large = pairs.crops(4, 24)
    losses = []
    for _ in range(100):
        losses.append((network(small) - large).abs().mean())
        adam.zero_grad()
        losses[-1].backward()
        adam.step()
    torch.testing.assert_close(losses[0], (bicubic(small) - large).abs().mean())
    assert losses[-1] < 0.97 * losses[0]


def test_a_run_stops_and_goes_on_where_it_was(trained: Path, tmp_path: Path) -> None:
    """A run whose time is up takes one step more, at the lowest rate."""
    run = trained / "upscaler"
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    assert {"difference", "bicubic"} <= json.loads((run / "log.jsonl").read_text().splitlines()[-1]).keys()
    assert (run / "samples.png").exists()
    torch.save(saved, tmp_path / "checkpoint.pt")
    train_upscaler(tmp_path, 0.03, CPU, pool=2, batch=2)
    resumed = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert resumed["step"] == saved["step"] + 1
    assert all((resumed["model"][name] - old).abs().max() < 1e-3 for name, old in saved["model"].items())


@torch.no_grad()
def test_packing_it_alone_leaves_the_others_as_they_are(
    trained: Path, tmp_path: Path, rng: torch.Generator
) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "a.json").write_text("{}")
    pack(trained, tmp_path, only=["upscaler"])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    mine = ["upscaler/config.json", "upscaler/model.safetensors"]
    assert list(manifest) == ["clip/a.json", *mine]
    assert manifest["clip/a.json"]["bytes"] == 2
    assert manifest[mine[1]]["bytes"] == (tmp_path / mine[1]).stat().st_size < 2 * 2**20
    network = ResidualCNN(**UPSCALER_CONFIG)
    weights = torch.load(trained / "upscaler" / "weights.pt", weights_only=True)
    network.load_state_dict({name: value.half().float() for name, value in weights.items()})
    image = torch.rand(2, 3, 12, 16, generator=rng) * 2 - 1
    loaded = Upscaler.from_folder(tmp_path / "upscaler")(image)
    torch.testing.assert_close(loaded, Upscaler(network)(image), atol=0, rtol=0)
    with pytest.raises(ValueError, match="No model is called 'sun'; known are clip, judge"):
        pack(trained, tmp_path, only=["sun"])


def test_the_shipped_upscaler_beats_bicubic(models: Models) -> None:
    shipped = report.shipped_upscaler()
    if shipped is None:
        pytest.skip("its weights are not there")
    card = report.upscaler_card(shipped, models, 12, seed=81)
    assert {f"upscaler: {what}" for what in card} <= report.BARS.keys()
    assert all(value > 0 for value in card.values())
    assert isinstance(load_upscaler(models), Upscaler)
