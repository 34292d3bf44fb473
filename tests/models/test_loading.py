"""From a published file on a server to a model that draws: fetched, checked, loaded."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save

import fusedream_nb as fd
from fusedream_nb.models.biggan import BigGAN, BigGANDeep
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.fetch import fetch
from fusedream_nb.models.perceptual import Perceptual
from fusedream_nb.models.weights import STICKERS, entry

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
TRANSFORMER = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}


@pytest.fixture
def store(mirror, tmp_path, monkeypatch) -> Path:
    """An empty cache, and the server as the first mirror."""
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FUSEDREAM_MIRROR", f"http://127.0.0.1:{mirror.server_port}")
    return tmp_path / "cache"


def packed(tensors: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def serve_clip(mirror, folder: str, vision: dict, **more: object) -> open_clip.CLIP:
    """Put a random CLIP of a small configuration on the server, in open_clip's own format."""
    settings = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, **more}
    config = {"model_cfg": settings, "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}}
    kind = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    model = kind(**settings).eval()
    config["model_cfg"] = settings | more
    mirror.url(f"{folder}/open_clip_config.json", content=json.dumps(config).encode())
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    mirror.url(f"{folder}/open_clip_model.safetensors", content=save(weights))
    return model


def serve_deep(mirror, name: str) -> dict[str, torch.Tensor]:
    """Put the stickers' generator on the server as a BigGAN-deep is published."""
    folder = STICKERS / "generator"
    state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    mirror.url(f"{name}/config.json", content=(folder / "config.json").read_bytes())
    mirror.url(f"{name}/pytorch_model.bin", content=packed(state))
    return state


@torch.no_grad()
def test_a_model_by_its_names(mirror, store, rng) -> None:
    """Generator, CLIP and judge by name, LPIPS by a local path: all behave as what was published."""
    serve_deep(mirror, "biggan-deep-512")  # of which no hash is known
    plain = serve_clip(mirror, "ViT-B-32-quickgelu", TRANSFORMER, quick_gelu=True)
    resnet = serve_clip(mirror, "RN50--openai", RESNET)
    models = fd.load(
        "biggan-deep-512",
        clip="ViT-B-32-quickgelu/openai",
        judge="RN50/openai",
        perceptual=str(STICKERS / "lpips"),
        device="cpu",
    )
    for part in (models.generator, models.clip, models.judge):
        part.to(models.device)  # in float32: with AMX they compute in bfloat16
    folder = store / "biggan-deep-512"
    latent = models.generator.sample(1, rng)
    picture = models.generator.decode(latent)
    assert torch.equal(picture, BigGANDeep.from_path(folder).decode(latent))
    small = 0.5 + 0.5 * picture[:, :, ::2, ::2]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
    for mine, published in ((models.clip, plain), (models.judge, resnet)):
        features = published.encode_image((small - mean) / std, normalize=True)
        torch.testing.assert_close(mine.encode_image(picture[:, :, ::2, ::2]), features, atol=1e-5, rtol=0)
        tokens = open_clip.get_tokenizer("RN50")(["a photo of a dog"])
        words = published.encode_text(tokens, normalize=True)
        torch.testing.assert_close(mine.encode_text("a photo of a dog"), words, atol=1e-5, rtol=0)
    asked = len(mirror.asked)
    fd.load(
        "biggan-deep-512", clip="ViT-B-32-quickgelu", judge="RN50/openai", perceptual=str(STICKERS / "lpips")
    )
    assert len(mirror.asked) == asked  # nothing is fetched twice


def test_a_clip_whose_text_tower_is_its_own(mirror, store) -> None:
    serve_clip(mirror, "MobileCLIP2-S0--dfndr2b", TRANSFORMER, custom_text=True)
    clip = Clip.from_folder(fetch(entry("MobileCLIP2-S0/dfndr2b")))
    assert clip.encode_text("a dog").shape == (1, clip.dim)


@torch.no_grad()
def test_a_fetched_biggan_draws_as_its_file_does(mirror, store, release, rng) -> None:
    mirror.url("biggan-128/biggan128-release.pt", content=packed(release(rng, channels=8, classes=10)))
    generator = fd.load("biggan-128", clip=str(STICKERS / "clip"), device="cpu").generator
    latent = generator.sample(1, rng)
    published = store / "biggan-128" / "biggan128-release.pt"
    theirs = BigGAN.from_path(published).to(torch.device("cpu"), generator.dtype)
    assert torch.equal(generator.decode(latent), theirs.decode(latent))


def test_wrong_keys_are_named(mirror, store) -> None:
    state = serve_deep(mirror, "biggan-deep-512")
    state["surplus.weight"] = state.pop("embeddings.weight")
    mirror.url("biggan-deep-512/pytorch_model.bin", content=packed(state))
    with pytest.raises(ValueError, match=r"missing: embeddings.weight; surplus: surplus.weight"):
        fd.load("biggan-deep-512", device="cpu")


def test_local_files_are_taken_where_names_are(release, rng, tmp_path) -> None:
    torch.save(release(rng, channels=8, classes=10), tmp_path / "some.pth")
    models = fd.load(
        str(tmp_path / "some.pth"),
        clip=str(STICKERS / "clip"),
        judge=str(STICKERS / "judge"),
        perceptual=str(STICKERS / "lpips"),
        device="cpu",
    )
    assert models.generator.size == 128 and not models.world
    sizes = replace(fd.budget("quick"), M=2, k=2, steps=2, copies=2, start_copies=1, judged_copies=2)
    steps = list(fd.fusedream("a dog", models, budget=sizes))
    assert [step.image.shape for step in steps] == 3 * [(1, 3, 128, 128)]
    assert not torch.equal(steps[0].image, steps[-1].image)


def test_another_trunk_of_lpips(tmp_path, rng) -> None:
    from torchvision.models import alexnet

    with torch.device("meta"):
        features = {k: v.shape for k, v in alexnet().state_dict().items() if k.startswith("features")}
    (file,) = entry("lpips-alex", tmp_path).files
    state = {k: torch.randn(shape, generator=rng) / 30 for k, shape in features.items()}
    torch.save(state, tmp_path / file.name)
    distance = Perceptual.from_path(tmp_path / file.name)
    a, b = torch.rand(2, 1, 3, 64, 64, generator=rng)
    assert distance(a, a).abs().max() < 1e-6 < distance(a, b).min()
