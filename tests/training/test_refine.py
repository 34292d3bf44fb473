"""Further training of what ships: it begins with the shipped pictures, learns, and is read by the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fusedream_nb.models.biggan import BigGANDeep
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.stickers.scenes import held_out
from fusedream_nb.models.weights import STICKERS
from training.refine import begun, draw, exported, latents, refine
from training.refine_encoder import shipped


def test_what_is_exported_draws_what_was_trained(tmp_path: Path) -> None:
    model = begun(STICKERS / "generator").requires_grad_(False)
    z, y, _ = latents(256, 1.0, torch.Generator().manual_seed(3))
    y = model.embeddings.weight.T[y]
    shutil.copy(STICKERS / "generator" / "config.json", tmp_path)
    save_file(exported(model, samples=256, rows=[50]), tmp_path / "model.safetensors")
    theirs = BigGANDeep.from_path(tmp_path).decode(Latent(z[:64], y[:64]))
    assert (theirs - draw(model, z, y)[:64]).abs().mean() < 0.03  # the statistics are those of other samples


def test_no_latent_of_a_held_out_pair_is_drawn_and_some_are_dyed() -> None:
    _, _, scenes = latents(500, 1.0, torch.Generator().manual_seed(0), dyed=0.35)
    assert len(scenes) == 500
    assert not held_out(scenes).any()
    assert (scenes.colour[:, 0] >= 0).float().mean() >= 0.35


@pytest.mark.heavy
def test_a_generator_trains_on_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    for minutes in (0.05, 0.1):
        average = refine(tmp_path, minutes, pool=32, batch=8)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    before = begun(STICKERS / "generator")
    moved = [not torch.equal(a, b) for a, b in zip(average.parameters(), before.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("name", ["clip", "judge"])
def test_an_encoder_with_a_larger_vocabulary_reads_as_before(name: str) -> None:
    network, config = shipped(name)
    ours = Clip.from_folder(STICKERS / name)
    tokens = ours.tokenizer(["a photo of a blue dog", "a castle on the beach"])
    end = tokens == tokens.max()
    tokens[end] = config["text_cfg"]["vocab_size"] - 1  # type: ignore[index]
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(network.eval().encode_text(tokens), dim=-1)
    torch.testing.assert_close(
        vectors, ours.encode_text(["a photo of a blue dog", "a castle on the beach"]), atol=1e-4, rtol=0
    )
