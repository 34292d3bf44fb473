"""The networks whose features metrics are taken on: Inception, or the judge in the sticker world."""

from __future__ import annotations

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
    """The sticker judge's vectors as features, and its cosines with the world's nouns as logits.

    The unit vectors are stretched by √d: KID's kernel (xᵀy / d + 1)³ is then (cosine + 1)³. The logits are
    scaled as in its training, so that their softmax is the judge's probability of each class (Radford et
    al., 2021: zero-shot classification).
    """

    def __init__(self, judge: Clip) -> None:
        from fusedream_nb.models.stickers import nouns
        from fusedream_nb.models.stickers.captions import article

        self.judge, self.name = judge, judge.name
        self.scale = float(judge.model.state_dict()["logit_scale"].exp())
        self.nouns = judge.encode_text([f"a photo of {article(noun)}" for noun in nouns.NOUNS])

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features [n, d] and the logits [n, nouns] of pictures."""
        return self.read(self.judge.encode_image(image))

    def read(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features [n, d] and the logits [n, nouns] of the judge's own unit vectors [n, d]."""
        return vectors.shape[1] ** 0.5 * vectors, self.scale * vectors @ self.nouns.T.to(vectors.device)


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
    """Return the network that a world is measured by: the judge for stickers, Inception elsewhere.

    Raises ValueError for Inception's weights in the sticker world or in another form, OSError for no file.
    """
    if models.world:
        if weights is not None:
            raise ValueError("The stickers are measured by their judge; --inception is for other models.")
        return Judge(models.judge)
    if weights is None:
        return Inception(models.device)
    weights.open("rb").close()  # torch-fidelity's own words for a missing file are an assertion
    try:
        return Inception(models.device, weights)
    except Exception as error:  # whatever unpickling finds
        raise ValueError(
            f"{weights} is not a file of torch-fidelity's Inception weights ({type(error).__name__})."
        ) from error


def reference_of(models: Models, network: Network, n: int, folder: str | Path | None = None) -> Tensor | None:
    """Return the features [m, d] of real pictures: a folder's, or n fresh scenes of the sticker world.

    None where there is neither. Raises ValueError for a folder without pictures.
    """
    if folder is not None:
        return _of_folder(models.generator.size, network, Path(folder))
    if not models.world:
        return None
    from fusedream_nb.evaluation.captions import TEST_SEED
    from fusedream_nb.models.stickers.scenes import sample_scenes
    from fusedream_nb.models.stickers.world import render

    scenes = sample_scenes(n, torch.Generator().manual_seed(TEST_SEED + 1))  # not those of the captions
    parts = [scenes[slice(i, i + CHUNK)] for i in range(0, n, CHUNK)]
    return torch.cat([network(render(part, models.generator.size))[0].cpu() for part in parts])


def _of_folder(size: int, network: Network, folder: Path) -> Tensor:
    from fusedream_nb.models.reference import read_picture

    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if len(paths) < 2:
        raise ValueError(
            f"{folder} holds {len(paths)} pictures; a reference requires at least two, PNG or JPEG."
        )
    parts = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    read = (torch.stack([read_picture(path, size) for path in part]) for part in parts)
    return torch.cat([network(images)[0].cpu() for images in read])
