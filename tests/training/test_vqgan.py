"""The two VQGANs: their laws, their codebook's care, a real run of seconds, packed and measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.vqgan import VQGAN
from training import report
from training.networks import PatchDiscriminator
from training.pack import pack
from training.vqgan import COMMITMENT, LAWS, PATIENCE, Ages, codebook_loss, train_vqgan

pytestmark = pytest.mark.heavy
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a painted VQGAN, a few seconds long."""
    folder = tmp_path_factory.mktemp("runs")
    weights = train_vqgan("vqgan-painted", folder / "vqgan-painted", 0.2, CPU, pool=16, batch=2)
    torch.save(weights, folder / "vqgan-painted" / "weights.pt")
    return folder


def test_the_painted_world_has_every_style_but_photo() -> None:
    style = LAWS["vqgan-painted"](600, torch.Generator().manual_seed(0)).style
    counts = style.bincount(minlength=len(world.STYLES))
    assert counts[list(world.STYLES).index("photo")] == 0
    assert counts[1:].min() > 80  # 120 each; the deviation is about 10


def test_unused_codes_begin_anew_at_vectors_of_the_batch() -> None:
    rng = torch.Generator().manual_seed(0)
    codes, average = torch.zeros(4, 2), torch.zeros(4, 2)
    vectors = torch.rand(5, 2, generator=rng) + 1
    ages = Ages(4)
    ages.revive(vectors, [codes], rng)
    assert ages.alive.all() and not codes.any()  # a code that ships has a grace of PATIENCE steps
    ages.steps.fill_(PATIENCE)
    ages.revive(vectors, [codes, average], rng)
    assert ages.alive.all() and torch.equal(codes, average)
    assert (codes[:, None] == vectors).all(-1).any(1).all()
    kept = codes.clone()
    for _ in range(PATIENCE):
        ages.count(torch.tensor([[0, 2], [2, 0]]))
    assert ages.alive.tolist() == [True, False, True, False]
    ages.revive(vectors + 5, [codes], rng)
    assert torch.equal(codes[::2], kept[::2])
    assert codes[1::2].min() > 5
    assert ages.alive.all()


def test_the_codebook_loss_moves_codes_more_than_the_encoder() -> None:
    z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    q = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = codebook_loss(z, q)
    torch.testing.assert_close(loss, (1 + COMMITMENT) * z.square().mean())
    by_z, by_q = torch.autograd.grad(loss, (z, q))
    torch.testing.assert_close(by_q, -2 * z / z.numel())
    torch.testing.assert_close(by_z, -COMMITMENT * by_q)


@torch.no_grad()
def test_the_discriminator_sees_patches() -> None:
    """A logit reads 22 pixels and nothing beyond them."""
    judge = PatchDiscriminator().eval()
    image = torch.zeros(1, 3, 64, 64)
    logits = judge(image)
    assert logits.shape == (1, 1, 15, 15)
    changed = image.clone()
    changed[..., 32, 32] = 1
    rows = ((judge(changed) - logits).abs()[0, 0] > 1e-9).any(0).nonzero()[:, 0]
    assert 0 < int(rows[-1] - rows[0]) + 1 <= 6


def test_a_run_goes_through_all_its_phases(runs: Path) -> None:
    folder = runs / "vqgan-painted"
    weights = torch.load(folder / "weights.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
    assert (folder / "samples.png").exists()
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"difference", "codebook", "hinge", "used"} <= rows[-1].keys()


def test_a_run_resumes_with_its_codebook(runs: Path, tmp_path: Path) -> None:
    """A run whose time is up takes one step more from where it was."""
    saved = torch.load(runs / "vqgan-painted" / "checkpoint.pt", weights_only=True)
    torch.save(saved, tmp_path / "checkpoint.pt")
    after = train_vqgan("vqgan-painted", tmp_path, 0.2, CPU, pool=4, batch=2)
    before = saved["average"]["quantize.embedding.weight"]
    assert (after["quantize.embedding.weight"] - before).abs().max() < 0.1 * before.std()
    resumed = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert resumed["step"] == saved["step"] + 1


def test_what_is_trained_is_packed_and_measured(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(runs, tmp_path, only=["vqgan-painted"])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest.keys() == {
        f"vqgan-painted/{name}" for name in ("config.json", "diffusion_pytorch_model.safetensors")
    }
    assert manifest["vqgan-painted/diffusion_pytorch_model.safetensors"]["bytes"] < 6 * 2**20
    monkeypatch.setattr("fusedream_nb.models.weights.STICKERS", tmp_path)
    (name, generator), *others = report.shipped_vqgans().items()
    assert name == "vqgan-painted" and not others
    card = report.vqgan_card(generator, name, 12, seed=80)
    assert {f"{name}: {what}" for what in card} <= report.BARS.keys()
    assert 0 < card["PSNR at 128 pixels"] < 60
    assert 0 < card["codebook in use"] <= 100
    with pytest.raises(ValueError, match="vqgan-painting"):
        pack(runs, tmp_path, only=["vqgan-painting"])


@torch.no_grad()
def test_the_packed_folder_is_one_of_diffusers(runs: Path, tmp_path: Path) -> None:
    from diffusers import VQModel

    pack(runs, tmp_path, only=["vqgan-painted"])
    theirs = VQModel.from_pretrained(tmp_path / "vqgan-painted").eval()
    mine = VQGAN.from_folder(tmp_path / "vqgan-painted")
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(
        mine.decode(mine.encode(image)), theirs(image).sample.clamp(-1, 1), atol=1e-3, rtol=0
    )


def test_psnr_by_hand() -> None:
    black, off = -torch.ones(2, 3, 4, 4), torch.tensor([-0.8, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(report.psnr(black, off), torch.tensor([20.0, 0.0]))
