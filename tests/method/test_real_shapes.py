"""Every method takes two steps on models of the papers' shapes, with random weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import standins
import torch
from diffusers import VQModel
from torch import nn

import fusedream_nb as fd
from fusedream_nb.method.budgets import BUDGETS
from fusedream_nb.models import Models
from fusedream_nb.models.biggan import BigGANDeep
from fusedream_nb.models.vqgan import F16, VQGAN

pytestmark = pytest.mark.heavy

TINY = replace(BUDGETS["quick"], M=1, k=1, steps=2, copies=1, start_copies=1, judged_copies=1)
ONE = fd.Placement.at(0.5, "left", "top")


def lively(network: nn.Module) -> None:
    """Give each layer weights that keep its input's scale, so that pictures vary and gradients flow."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)


def deep() -> BigGANDeep:
    config = standins.deep_config(128)
    generator = BigGANDeep(
        config, standins.biggan_deep(config, torch.Generator().manual_seed(0)).state_dict()
    )
    lively(generator.network)
    return generator


def grid() -> VQGAN:
    model = VQModel(**F16, num_vq_embeddings=1024)
    lively(model)
    nn.init.normal_(model.quantize.embedding.weight)
    return VQGAN(model, canvas=(64, 64))


@pytest.fixture(scope="module", params=[deep, grid], ids=["biggan-deep-128", "vqgan-f16"])
def real(request, models: Models) -> Models:
    torch.manual_seed(0)
    return replace(models, generator=request.param(), name="random", world="")


def check(steps: list) -> None:
    """Three steps, finite pictures that are not flat, and something that was climbed."""
    assert [step.index for step in steps] == [0, 1, 2]
    assert all(torch.isfinite(step.image).all() and step.image.abs().max() <= 1 for step in steps)
    assert steps[0].image.std() > 0.05
    images = torch.equal(steps[0].image, steps[-1].image)
    assert not (
        images and torch.equal(steps[0].latent.z, steps[-1].latent.z)
    )  # codes move before pictures do


def test_attack(real: Models, rng: torch.Generator) -> None:
    with torch.no_grad():
        image = real.generator.decode(real.generator.sample(1, rng))
    score = fd.AugCLIP(real.clip, "a dog", 2)
    check(list(fd.pgd(image, score, rng, steps=2)))


def test_fusedream(real: Models) -> None:
    check(list(fd.fusedream("a dog", real, budget=TINY)))


def test_transport(real: Models) -> None:
    check(list(fd.transport(["a dog", "a house"], real, budget=TINY, cutouts=fd.Cutouts(4))))


def test_compose(real: Models) -> None:
    check(
        list(
            fd.compose(
                "a dog and a house",
                real,
                foreground="a dog",
                background="a house",
                placements=ONE,
                budget=TINY,
            )
        )
    )
