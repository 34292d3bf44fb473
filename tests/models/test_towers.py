"""Folded image towers against open_clip's own forward."""

from __future__ import annotations

import copy
from collections.abc import Callable

import open_clip
import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import nn

from fusedream_nb.models import Models
from fusedream_nb.models.towers import OneQueryPool, fold

Agree = Callable[..., None]


def resnet(rng: torch.Generator) -> ModifiedResNet:
    """A small ResNet of CLIP's kind with random weights, statistics and gains."""
    torch.manual_seed(0)
    tower = ModifiedResNet((1, 2, 1, 1), output_dim=24, heads=4, image_size=64, width=8).eval()
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                values.uniform_(low, high, generator=rng)
        if isinstance(module, nn.Linear):
            module.bias.data.uniform_(-0.5, 0.5, generator=rng)
    return tower


def test_a_folded_tower_gives_the_same_vectors_and_gradients(agree: Agree, rng: torch.Generator) -> None:
    tower = resnet(rng)
    folded = fold(copy.deepcopy(tower))
    assert not any(isinstance(module, nn.BatchNorm2d | AttentionPool2d) for module in folded.modules())
    image = torch.randn(3, 3, 64, 64, generator=rng)
    agree(folded, tower, image, 1e-5)
    agree(fold(folded), tower, image, 1e-5)  # again: it stays


def test_attention_that_looks_at_one_place_only_is_the_same(agree: Agree, rng: torch.Generator) -> None:
    pool = AttentionPool2d(2, 32, 2, 8)
    pool.q_proj.weight.data.mul_(30)  # logits hundreds apart
    agree(OneQueryPool(pool), pool, torch.randn(64, 32, 2, 2, generator=rng), 1e-5)


def test_other_towers_are_left_alone(models: Models) -> None:
    tower = models.judge.model.visual
    before = tower.state_dict()
    assert fold(tower) is tower
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())


def test_a_published_resnet_is_folded_where_it_is_loaded(rng: torch.Generator) -> None:
    from fusedream_nb.models.encoders import Clip

    torch.manual_seed(0)
    model = open_clip.CLIP(**open_clip.get_model_config("RN50")).eval()
    image = torch.rand(1, 3, 224, 224, generator=rng) * 2 - 1
    with torch.no_grad():
        reference = model.encode_image(image, normalize=True)
        clip = Clip(model, open_clip.get_tokenizer("RN50"))
        torch.testing.assert_close(clip.encode_image(image), reference, atol=1e-5, rtol=0)
    assert isinstance(clip.model.visual.attnpool, OneQueryPool)
