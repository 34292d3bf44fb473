"""The notebooks run on a model that is not the stickers': random weights stand where the real ones would.

Every file has the name and the form that a published model has, so the notebooks load them by
FUSEDREAM_MODEL, from a cache of the test's own. One notebook runs on networks of those kinds that are as
small as can be; with ``-m random_model`` so do all that a BigGAN can draw, and one on the real shapes
(BigGAN-deep-128, ViT-B/32, RN50), which is slow without a GPU. What they draw is noise: the test asks that
they come to their end, with pictures and verdicts.
"""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import open_clip
import pytest
import torch
from pytorch_pretrained_biggan.config import BigGANConfig
from pytorch_pretrained_biggan.model import BigGAN
from torch import nn

from fusedream_nb.models.files import write_tensors
from fusedream_nb.models.weights import CLIP as CLIP_NAME
from fusedream_nb.models.weights import JUDGE, entry
from fusedream_nb.reproduce.kernels import WakefulManager

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
BIGGAN = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "14", "15")  # need no VQGAN
ONE = "01"  # runs by default, and on networks of the real shapes too
SMALL_DEEP = {
    "output_dim": 64, "z_dim": 16, "class_embed_dim": 16, "channel_width": 4, "num_classes": 12,
    "layers": [[False, 16, 8], [True, 8, 4], [True, 4, 2], [True, 2, 1], [True, 1, 1]],
    "attention_layer_position": 2,
}  # fmt: skip
REAL_DEEP = {
    "output_dim": 128,
    "layers": [
        [False, 16, 16], [True, 16, 16], [False, 16, 16], [True, 16, 8], [False, 8, 8],
        [True, 8, 4], [False, 4, 4], [True, 4, 2], [False, 2, 2], [True, 2, 1],
    ],
    "attention_layer_position": 8,
}  # fmt: skip
SMALL_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def lively(network: nn.Module) -> nn.Module:
    """Give each layer weights that keep its input's scale, so that pictures vary and gradients flow."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = getattr(module, "weight_orig", module.weight)
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        if hasattr(module, "running_vars"):
            module.running_means.zero_()
            module.running_vars.fill_(1)
            if not module.conditional:  # the package leaves both unset: whatever was in the memory
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
    return network


def save_clip(name: str, settings: dict) -> None:
    """Write a random CLIP where the cache would have the one of a name."""
    folder = entry(name).folder
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings}))
    write_tensors(open_clip.CLIP(**settings).state_dict(), folder / "open_clip_model.safetensors")


@pytest.fixture
def asked(request):
    """Skip what is marked ``random_model`` unless the marker was asked for by its name."""
    marked = request.node.get_closest_marker("random_model")
    if marked and "random_model" not in (request.config.getoption("-m") or ""):
        pytest.skip("takes minutes; -m random_model runs it")


@pytest.fixture
def random_model(asked, request, monkeypatch, tmp_path):
    """Set FUSEDREAM_MODEL to a folder of a random model, its encoders in a cache beside it."""
    from torchvision.models import squeezenet1_1

    real, folder = request.param == "real", tmp_path / "random"
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FUSEDREAM_MODEL", str(folder))
    torch.manual_seed(0)
    folder.mkdir()
    config = BigGANConfig(**(REAL_DEEP if real else SMALL_DEEP))
    (folder / "config.json").write_text(config.to_json_string())
    network = lively(BigGAN(config)).train()
    with torch.no_grad():
        for _ in range(10):  # in training each pass brings the spectral norms nearer to what they should be
            network(torch.randn(1, config.z_dim), torch.eye(config.num_classes)[:1], 1.0)
    write_tensors(network.state_dict(), folder / "model.safetensors")
    for name in (CLIP_NAME, JUDGE):
        shape = open_clip.get_model_config(name.partition("/")[0]) if real else SMALL_CLIP
        save_clip(name, shape)
    trunk = entry("lpips-squeeze")
    trunk.folder.mkdir(parents=True)
    torch.save(squeezenet1_1().state_dict(), trunk.folder / trunk.files[0].name)


def cases():
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        number = path.name[:2]
        for shape in ("small", "real"):
            if number in BIGGAN and (shape == "small" or number == ONE):
                marks = () if (shape, number) == ("small", ONE) else pytest.mark.random_model
                yield pytest.param(shape, path, id=f"{path.stem}-{shape}", marks=marks)


@pytest.mark.parametrize(("random_model", "path"), list(cases()), indirect=["random_model"])
def test_a_notebook_runs_on_another_model(random_model, path):
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(
        notebook,
        timeout=7200,
        kernel_name="python3",
        resources=resources,
        kernel_manager_class=WakefulManager,
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    told = "".join(output.get("text", "") for output in outputs)
    assert "random on cpu" in told  # not the stickers
    assert " · holds\n" in told or " · differs\n" in told
    assert any("image/png" in output.get("data", {}) for output in outputs)
