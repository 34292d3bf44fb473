"""Models that many tests share: the real sticker models, loaded once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

import fusedream_nb as fd
from fusedream_nb.models import Models
from fusedream_nb.models.encoders import Clip

settings.register_profile("untimed", deadline=None)  # a test says what is right, not how fast
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def models() -> Models:
    """The sticker models on the CPU."""
    return fd.load("stickers", device="cpu")


@pytest.fixture
def fresh_clip(models: Models) -> Clip:
    """The sticker CLIP that has read no text yet, so that it warns of each, whatever other tests read."""
    return Clip(models.clip.model, models.clip.tokenizer, name=models.clip.name)


@pytest.fixture
def rng() -> torch.Generator:
    """Randomness of a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pictures(models: Models) -> torch.Tensor:
    """Four samples of the sticker generator, [4, 3, 64, 64] in [-1, 1]."""
    with torch.no_grad():
        return models.generator.decode(models.generator.sample(4, torch.Generator().manual_seed(5)))
