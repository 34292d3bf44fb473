"""Files put there by hand: a sentence that names the file, what was expected and the way out."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fusedream_nb as fd
from fusedream_nb.models.files import read_config, read_file
from fusedream_nb.models.weights import STICKERS

REST = {"clip": STICKERS / "clip", "judge": STICKERS / "judge", "perceptual": STICKERS / "lpips"}
STATE = {"weight": torch.arange(3000.0), "count": torch.tensor(3)}


def packed(value: object, **settings: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **settings)
    return file.getvalue()


OLD, NEW = packed(STATE, _use_new_zipfile_serialization=False), packed(STATE)
FILES = {
    "a page": b"<html><body>Sign in</body></html>",
    "nothing": b"",
    "zeros": bytes(5000),
    "half a file of today": NEW[: len(NEW) // 2],
    "half a file of old": OLD[: len(OLD) // 2],
    "nine tenths of a file of old": OLD[: len(OLD) * 9 // 10],
    "the head of a file of old": OLD[:40],
    "a list": packed([torch.zeros(3)]),
    "a tensor alone": packed(torch.zeros(3)),
    "numbers alone": packed({"epoch": 3, "loss": 0.5}),
    "a state dict two levels down": packed({"model": {"weights": STATE}, "epoch": 3}),
    "somebody's class": packed({"weight": Path("x")}),
}
CONFIGS = {
    "a list": "[1, 2]",
    "half": '{"output_dim": 64, "z_d',
    "nothing": "",
    "a number": "3",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "too deep": "[" * 100_000,
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["w.pt", "w.ckpt", "model.safetensors"])
def test_weights_that_are_none_are_named(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[kind])
    with pytest.raises(ValueError) as told:
        read_file(path)
    text = str(told.value)
    assert str(path) in text and "tensors" in text
    assert "replace it by the file as it was published" in text or "save the state dict alone" in text
    with pytest.raises(ValueError, match=name):
        fd.load(path if name != "model.safetensors" else stickers(tmp_path, weights=FILES[kind]), **REST)


def stickers(folder: Path, *, config: str | bytes | None = None, weights: bytes | None = None) -> Path:
    """A copy of the stickers' generator with other contents."""
    target = folder / "generator"
    shutil.copytree(STICKERS / "generator", target)
    for name, content in {"config.json": config, "model.safetensors": weights}.items():
        if content is not None:
            (target / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return target


@pytest.mark.parametrize("kind", CONFIGS)
def test_configurations_that_are_none_are_named(tmp_path: Path, kind: str) -> None:
    folder = stickers(tmp_path, config=CONFIGS[kind])
    with pytest.raises(ValueError, match=r"config.json .*replace it by the file as it was published"):
        fd.load(folder, **REST)
    with pytest.raises(ValueError, match="JSON"):
        read_config(folder / "config.json")


@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "BigGAN"},
        {"_class_name": "BigGAN", "widths": [1, 1], "attention": 10**6, "chunk": 2},
        {"_class_name": "BigGAN", "widths": "wide", "attention": 8, "chunk": 2},
        {"_class_name": "VQModel", "block_out_channels": "many"},
        {"_class_name": "VQModel", "norm_num_groups": 7},
        {"layers": 3},
        {"layers": [[True, 1]], "output_dim": "large"},
        {},
        {"model_type": "bert", "hidden_size": 768},
    ],
)
def test_a_configuration_of_something_else_is_a_sentence(tmp_path: Path, config: dict) -> None:
    folder = stickers(tmp_path, config=json.dumps(config))
    shutil.copy(folder / "model.safetensors", folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match=r"does not describe|are not those of this model"):
        fd.load(folder, **REST)


@pytest.mark.parametrize(
    "config",
    [{}, {"model_cfg": 3}, {"model_cfg": {"embed_dim": 8}}, {"model_cfg": {"text_cfg": {}, "vision_cfg": {}}},
     {"model_cfg": {"embed_dim": 8, "text_cfg": {"width": 7, "heads": 2}, "vision_cfg": {"layers": 1}}},
     {"model_cfg": {"embed_dim": 8, "text_cfg": {}, "vision_cfg": {"timm_model_name": "no-such-network"}}}],
)  # fmt: skip
def test_a_clip_whose_configuration_is_another_is_a_sentence(tmp_path: Path, config: dict) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(STICKERS / "clip", folder)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"does not describe a CLIP|are not those of this model"):
        fd.load("stickers", clip=folder)


def test_a_file_of_another_kind_and_an_empty_folder_say_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"photo.png is no generator; a file of one ends in .ckpt, .pt"):
        fd.load(tmp_path / "photo.png", **REST)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no config.json; put it there"):
        fd.load(str(tmp_path / "empty"), **REST)
    with pytest.raises(FileNotFoundError, match=r"has no open_clip_config.json"):
        fd.load("stickers", clip=tmp_path / "photo.png")


def test_paths_devices_and_single_files_are_taken_as_they_are(tmp_path: Path) -> None:
    """A folder or the weights in it, as a Path or in words; a torch.device; a checkpoint's state dict."""
    folder = stickers(tmp_path)
    by_folder = fd.load(folder, device=torch.device("cpu"), **REST)
    by_file = fd.load(str(folder / "model.safetensors"), **{k: str(v) for k, v in REST.items()})
    clip = fd.load("stickers", clip=STICKERS / "clip" / "open_clip_model.safetensors").clip
    latent = by_folder.generator.sample(1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(by_folder.generator.decode(latent), by_file.generator.decode(latent))
    assert torch.equal(clip.encode_text("a dog"), by_file.clip.encode_text("a dog"))
    state = load_file(folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(packed({"state_dict": state, "epoch": 3}))
    (folder / "model.safetensors").unlink()
    again = fd.load(folder, **REST)
    with torch.no_grad():
        assert torch.equal(again.generator.decode(latent), by_file.generator.decode(latent))
