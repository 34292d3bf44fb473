"""Our CLIP networks against open_clip's own forward, and that nobody's network is changed."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

from fusedream_nb.models import Models
from fusedream_nb.models.clip_network import (
    AttentionPool,
    CLIPNetwork,
    is_plain,
    load_network,
)
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.files import read_config, read_file, write_tensors
from fusedream_nb.models.weights import STICKERS

Agree = Callable[..., None]
TEXT = {"context_length": 12, "vocab_size": 60, "width": 32, "heads": 4, "layers": 2}
TRANSFORMER = {"image_size": 40, "patch_size": 8, "width": 32, "head_width": 8, "layers": 3}
KINDS = {
    "ViT, as OpenAI's": {"vision_cfg": TRANSFORMER, "quick_gelu": True},
    "ViT, GELU": {"vision_cfg": TRANSFORMER | {"mlp_ratio": 2.0}},
    "ViT, its edges cut": {"vision_cfg": TRANSFORMER | {"image_size": 43}},
    "ResNet": {"vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None}},
    "RegNet": {"vision_cfg": {"timm_model_name": "regnetx_002", "image_size": 64}},
}
OTHERS = {
    "the tokens' mean": {"vision_cfg": TRANSFORMER | {"pool_type": "avg"}},
    "timm's": {"vision_cfg": {"timm_model_name": "regnety_002", "image_size": 64}},
    "a text tower of its own": {"vision_cfg": TRANSFORMER, "custom_text": True},
}


def published(kind: str, seed: int = 0) -> tuple[dict[str, object], nn.Module]:
    """A configuration and open_clip's network of it, every number of it random."""
    config = {"embed_dim": 24, "text_cfg": TEXT, **KINDS[kind]}
    torch.manual_seed(seed)
    network = open_clip.CLIP(**config).eval().requires_grad_(False).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3 if "ViT" in kind else 0.1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
    return config, network


def ours(config: dict[str, object], network: nn.Module) -> CLIPNetwork:
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    return load_network(config, tensors, Path("here"))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_have_open_clips_vectors_and_gradients(
    kind: str, agree: Agree, rng: torch.Generator
) -> None:
    config, network = published(kind)
    mine = ours(config, network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in mine.modules())
    size = config["vision_cfg"]["image_size"]  # type: ignore[index]
    image = torch.randn(3, 3, size, size, generator=rng, dtype=torch.float64)
    agree(mine.visual, network.visual, image, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_texts_have_open_clips_vectors(kind: str, rng: torch.Generator) -> None:
    config, network = published(kind)
    tokens = torch.randint(1, 50, (4, 12), generator=rng)
    tokens[:, 6], tokens[:, 7:] = 59, 0  # the end, and nothing after it
    torch.testing.assert_close(ours(config, network).encode_text(tokens), network.encode_text(tokens))


def test_attention_that_looks_at_one_place_only_is_the_same(agree: Agree, rng: torch.Generator) -> None:
    theirs = open_clip.modified_resnet.AttentionPool2d(2, 32, 2, 8)
    theirs.q_proj.weight.data.mul_(30)  # logits hundreds apart
    mine = AttentionPool(4, 32, 2, 8)
    mine.load_state_dict(theirs.state_dict())
    agree(mine, theirs, torch.randn(64, 32, 2, 2, generator=rng), 1e-5)


@torch.no_grad()
def test_the_sticker_judge_has_open_clips_vectors(models: Models, rng: torch.Generator) -> None:
    folder = STICKERS / "judge"
    network = open_clip.CLIP(**read_config(folder / "open_clip_config.json")["model_cfg"]).eval()
    network.load_state_dict(read_file(folder / "open_clip_model.safetensors"))
    side = models.judge.size
    image = torch.rand(8, 3, side, side, generator=rng) * 2 - 1  # mean and std are 0.5: nothing to change
    theirs = nn.functional.normalize(network.encode_image(image), dim=-1)
    torch.testing.assert_close(models.judge.encode_image(image), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-B-32", "RN50"])
def test_published_configurations_are_plain(name: str) -> None:
    assert is_plain(open_clip.get_model_config(name))


@pytest.mark.parametrize("kind", OTHERS)
@torch.no_grad()
def test_other_networks_are_open_clips_own(kind: str, tmp_path: Path, rng: torch.Generator) -> None:
    config = {"embed_dim": 24, "text_cfg": TEXT | {"context_length": 77, "vocab_size": 49408}, **OTHERS[kind]}
    assert not is_plain(config)
    settings = dict(config)
    make = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    network = make(**settings).eval()
    write_tensors(network.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    clip = Clip.from_folder(tmp_path)
    image = torch.rand(2, 3, clip.size, clip.size, generator=rng) * 2 - 1
    theirs = nn.functional.normalize(network.encode_image(image), dim=-1)
    torch.testing.assert_close(clip.encode_image(image), theirs)
    assert clip.encode_text("a dog").shape == (1, clip.dim)


def test_a_network_of_ones_own_stays_as_it_is(rng: torch.Generator) -> None:
    """An encoder made of somebody's network reads a copy: weights, mode and gradients stay."""
    config, network = published("ResNet")
    network = network.float().train().requires_grad_(True)
    before = copy.deepcopy(network.state_dict())
    clip = Clip(network, lambda texts: torch.zeros(len(texts), 12).long())
    clip.encode_image(torch.rand(2, 3, 64, 64, generator=rng))
    assert network.training and all(p.requires_grad for p in network.parameters())
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    config, network = published("ResNet")
    tensors = dict(network.state_dict())
    tensors["more"] = tensors.pop("visual.layer2.0.bn1.weight")
    with pytest.raises(ValueError, match=r"missing: visual.layer2.0.bn1.weight; surplus: more"):
        load_network(config, tensors, tmp_path)


def test_bfloat16_turns_vectors_by_less_than_a_hundredth_and_leaves_them_in_float32(
    rng: torch.Generator,
) -> None:
    config, network = published("ViT, as OpenAI's")
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    clip = Clip(ours(config, network).float(), None)
    image = (torch.rand(4, 3, 40, 40, generator=rng) * 2 - 1).requires_grad_()
    exact = clip.encode_image(image)
    rounded = clip.to(torch.device("cpu"), torch.bfloat16).encode_image(image)
    assert rounded.dtype == torch.float32
    assert 0 < (1 - (exact * rounded).sum(1)).max() < 1e-2
    slopes = [torch.autograd.grad(vectors[:, 0].sum(), image)[0] for vectors in (exact, rounded)]
    assert nn.functional.cosine_similarity(*(slope.flatten(1) for slope in slopes)).min() > 0.99


def test_generate_with_stickers_imports_none_of_the_libraries_that_real_models_need(tmp_path: Path) -> None:
    command = f"-X importtime -m fusedream_nb generate dog --budget smoke --device cpu --out {tmp_path}"
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "fusedream_nb.models.encoders" in imported
    heavy = {"open_clip", "torchvision", "lpips", "diffusers", "timm", "torch._dynamo", "cma", "matplotlib"}
    assert not heavy & imported
