"""The networks that metrics are taken on."""

from __future__ import annotations

import pytest
import standins
import torch

from fusedream_nb.evaluation.captions import sticker_scenes
from fusedream_nb.evaluation.networks import Inception, network_of
from fusedream_nb.models.stickers.world import render


def test_the_judge_reads_the_nouns_of_the_test_set(models):
    _, scenes = sticker_scenes(60)
    network = network_of(models)
    features, logits = network(render(scenes))
    assert features.shape == (60, models.judge.dim) and logits.shape == (60, 28)
    assert torch.allclose(features @ features.T / models.judge.dim, cosines(features), atol=1e-5)
    read = logits.argmax(1)
    right = ((read == scenes.noun[:, 0]) | (read == scenes.noun[:, 1])).float().mean()
    assert right > 0.9
    sure = logits.softmax(1).amax(1)
    assert sure.mean() > 0.5  # scaled as in its training: not nearly even


def cosines(features):
    return torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_inception_is_torch_fidelitys_own(tmp_path):
    """With random weights in a file of our own: those that define the metrics are a download."""
    path = tmp_path / "inception.pth"
    network = standins.save_inception(path)
    levels = torch.randint(256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    with torch.no_grad():
        expected = network(levels)
    found = Inception(torch.device("cpu"), path)(levels / 127.5 - 1)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
