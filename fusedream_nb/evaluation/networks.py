"""The networks whose features metrics are taken on: Inception, or the judge among the stickers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fusedream_nb.models import Models
from fusedream_nb.models.encoders import Clip

INCEPTION = "inception-v3-compat"  # torch-fidelity's name of the weights that papers use
CHUNK = 64  # pictures in memory at a time


class Network(Protocol):
    """What turns pictures [n, 3, h, w] in [-1, 1] into features [n, d] and logits [n, classes]."""

    name: str

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and the logits of pictures."""
        ...


class Judge:
    """A sticker judge's vectors as features, and its cosines with the world's nouns as logits.

    The unit vectors are stretched by √d: KID's kernel (xᵀy / d + 1)³ is then (cosine + 1)³. The logits are
    scaled as in its training, so that their softmax is the judge's probability of each class (Radford et
    al., 2021: zero-shot classification).
    """

    def __init__(self, judge: Clip) -> None:
        self.judge, self.name = judge, judge.name
        self.scale = float(judge.model.state_dict()["logit_scale"].exp())

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features [n, d] and the logits [n, nouns] of pictures."""
        return self.read(self.judge.encode_image(image))

    def read(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features [n, d] and the logits [n, nouns] of the judge's own unit vectors [n, d]."""
        from fusedream_nb.models.stickers.report import read_nouns

        return vectors.shape[1] ** 0.5 * vectors, self.scale * read_nouns(self.judge, vectors)


class Inception:
    """Inception v3 with the weights that FID and the Inception Score are defined by, by torch-fidelity.

    ``weights`` is a local file of them; without it torch-fidelity downloads its own.
    """

    name = INCEPTION

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = None if weights is None else str(weights)
        layers = ["2048", "logits_unbiased"]
        self.network = FeatureExtractorInceptionV3(INCEPTION, layers, feature_extractor_weights_path=path)
        self.network.eval().requires_grad_(False).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled features [n, 2048] and the logits [n, 1008] of pictures."""
        levels = ((image + 1) * 127.5).round().clamp(0, 255).byte()
        features, logits = self.network(levels.to(self.device))
        return features.cpu(), logits.cpu()


def network_of(models: Models, weights: Path | None = None) -> Network:
    """Return the network that a world is measured by: the judge for stickers, Inception elsewhere."""
    return Judge(models.judge) if models.world else Inception(models.device, weights)


def reference_of(models: Models, network: Network, n: int, folder: Path | None = None) -> Tensor | None:
    """Return the features [m, d] of real pictures: a folder's, or n fresh scenes of the sticker world.

    None where there is neither. Raises ValueError for a folder without pictures.
    """
    if folder is not None:
        return _of_folder(models, network, folder)
    if not models.world:
        return None
    from fusedream_nb.evaluation.captions import TEST_SEED
    from fusedream_nb.models.stickers.scenes import sample_scenes
    from fusedream_nb.models.stickers.world import render

    scenes = sample_scenes(n, torch.Generator().manual_seed(TEST_SEED + 1))  # not those of the captions
    return _chunked(n, network, lambda some: render(scenes[some], models.generator.size))


def _of_folder(models: Models, network: Network, folder: Path) -> Tensor:
    from fusedream_nb.models.reference import read_picture

    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if len(paths) < 2:
        raise ValueError(
            f"{folder} holds {len(paths)} pictures; a reference wants at least two, PNG or JPEG."
        )
    size = models.generator.size
    return _chunked(
        len(paths), network, lambda some: torch.stack([read_picture(p, size) for p in paths[some]])
    )


def _chunked(n: int, network: Network, pictures: Callable[[slice], Tensor]) -> Tensor:
    return torch.cat([network(pictures(slice(i, i + CHUNK)))[0].cpu() for i in range(0, n, CHUNK)])
