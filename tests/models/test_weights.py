"""Names, folders and hashes of weights; devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.models import resolve_device, resolve_dtype
from fusedream_nb.models.weights import STICKERS, catalogue, entry


def test_shipped_weights_are_whole_and_small() -> None:
    row = entry("stickers")
    assert row.here
    assert row.problems() == []
    assert 0 < row.bytes < 32 * 2**20


def test_a_changed_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in STICKERS.rglob("*.json"):
        target = tmp_path / path.relative_to(STICKERS)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes() + b" ")
    monkeypatch.setattr("fusedream_nb.models.weights.STICKERS", tmp_path)
    problems = entry("stickers").problems()
    assert any("config.json does not have the hash" in text for text in problems)
    assert any("model.safetensors is missing" in text for text in problems)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="No model is called 'dall-e'; known are stickers, biggan-deep-128"):
        fd.load("dall-e")


def test_a_missing_file_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path))
    monkeypatch.setenv("FUSEDREAM_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=f"put config.json and pytorch_model.bin .* into {tmp_path}"):
        fd.load("biggan-deep-256")
    monkeypatch.delenv("FUSEDREAM_OFFLINE")
    for said in (
        r"\(234,412,452 bytes; licence: MIT",
        "models fetch biggan-deep-256",
        "https://s3.amazonaws.com/",
    ):
        with pytest.raises(FileNotFoundError, match=said):
            entry("biggan-deep-256").require()


def test_names_of_open_clip_are_names(tmp_path: Path) -> None:
    known = entry("ViT-B-32-quickgelu/openai", tmp_path)
    assert known == entry("ViT-B-32-quickgelu", tmp_path)
    judge = entry("RN50/openai", tmp_path)
    assert (judge.role, judge.folder) == ("clip", tmp_path / "RN50--openai")
    assert (
        judge.files[1].urls[0].endswith("timm/resnet50_clip.openai/resolve/main/open_clip_model.safetensors")
    )
    with pytest.raises(ValueError, match="No model is called 'RN50/no-such-tag'"):
        entry("RN50/no-such-tag")


def test_every_row_has_a_name_a_role_and_a_licence() -> None:
    rows = catalogue()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.role and row.licence and row.files for row in rows)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu").type == "cpu"
    monkeypatch.setenv("FUSEDREAM_DEVICE", "cpu")
    assert resolve_device().type == "cpu"
    with pytest.raises(ValueError, match="No device is called 'tpu'; known are auto, cpu, cuda, mps"):
        resolve_device("tpu")


def test_only_cpus_with_amx_compute_in_bfloat16_and_never_the_embedded_networks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, wide = torch.device("cpu"), torch.bfloat16
    for amx in (False, True):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda amx=amx: {"amx_bf16": amx}, raising=False)
        assert resolve_dtype(cpu, embedded=False) is (wide if amx else torch.float32)
        assert resolve_dtype(cpu, embedded=True) is torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert resolve_dtype(cpu, embedded=False) is torch.float32
    assert resolve_dtype(torch.device("mps"), embedded=False) is torch.float32
