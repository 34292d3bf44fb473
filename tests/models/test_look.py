"""``--look`` tells right weights from random ones, from two that are swapped, and from a file cut short."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import standins

from fusedream_nb.cli import main
from fusedream_nb.models import weights
from fusedream_nb.models.files import read_file, write_tensors
from fusedream_nb.models.look import look

SWAPPED = {  # two tensors of one shape
    "generator": [f"generator.layers.0.conv_{i}.weight_orig" for i in (1, 2)],
    "vqgan": ["quant_conv.weight", "post_quant_conv.weight"],
    "clip": [f"transformer.resblocks.{i}.attn.in_proj_weight" for i in (0, 1)],
    "judge": [f"transformer.resblocks.{i}.attn.in_proj_weight" for i in (0, 1)],
    "lpips": [f"features.{i}.expand3x3.weight" for i in (3, 4)],
}
STANDINS = ("biggan-128", "vqgan-imagenet-16384", weights.CLIP, weights.JUDGE, "lpips-squeeze")
each_part = pytest.mark.parametrize("part", SWAPPED)


@pytest.fixture
def damaged(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights file of one part of the stickers, a copy, where the package looks for it."""
    for path in weights.STICKERS.iterdir():
        (tmp_path / path.name).symlink_to(path) if path.name != part else shutil.copytree(
            path, tmp_path / part
        )
    monkeypatch.setattr(weights, "STICKERS", tmp_path)
    return next((tmp_path / part).glob("*.safetensors"))


@each_part
def test_right_weights_pass(part: str) -> None:
    (found,) = look(f"stickers/{part}")
    assert found.passed, found


@each_part
def test_two_tensors_swapped_do_not(part: str, damaged: Path) -> None:
    tensors, (a, b) = read_file(damaged), SWAPPED[part]
    assert tensors[a].shape == tensors[b].shape
    write_tensors(tensors | {a: tensors[b], b: tensors[a]}, damaged)
    (found,) = look(f"stickers/{part}")
    assert not found.passed, found


@each_part
def test_a_file_that_is_cut_short_does_not(part: str, damaged: Path) -> None:
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    (found,) = look(f"stickers/{part}")
    assert not found.passed and damaged.name in found.found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    standins.build(folder, *STANDINS)
    return folder


@pytest.mark.parametrize("name", STANDINS)
def test_random_weights_in_files_like_the_released_ones_do_not(
    name: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEDREAM_CACHE", str(store))
    (found,) = look(name)
    assert not found.passed, found


def test_the_command_says_so_and_leaves_a_contact_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fusedream_nb.models.look.PARTS", {"generator": "generator"})
    assert main(["models", "verify", "stickers", "--look"]) == 0
    assert "20 of 20 pictures of its classes" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["look-stickers-generator.png"]
