"""DAMSM's encoders against AttnGAN's layers written out, from files as its authors publish them."""

from __future__ import annotations

import os
import pickle
from functools import partial
from pathlib import Path

import pytest
import standins
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import inception_v3

from fusedream_nb.evaluation.captions import sticker_scenes
from fusedream_nb.evaluation.networks import Damsm
from fusedream_nb.evaluation.runs import Folder, Plan, here, run
from fusedream_nb.evaluation.table import summarise
from fusedream_nb.method.budgets import budget

WORDS = ["<end>", "a", "photo", "of", "dog", "cat", "red", "blue", "on", "the", "beach", "cafe"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under the released names, saved as PyTorch did in 2017."""
    path = tmp_path_factory.mktemp("damsm")
    standins.save_damsm(path, WORDS)
    return path


@torch.no_grad()
def by_layers(w: dict[str, Tensor], image: Tensor) -> Tensor:
    """AttnGAN's CNN_ENCODER: Inception's parts in turn, pooled over its 8 × 8 places."""
    network = inception_v3(weights=None, aux_logits=False, init_weights=False).eval()
    network.load_state_dict(w, strict=False)
    x = F.interpolate(image, (299, 299), mode="bilinear", align_corners=False)
    x = network.Conv2d_2b_3x3(network.Conv2d_2a_3x3(network.Conv2d_1a_3x3(x)))
    x = network.Conv2d_4a_3x3(network.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
    x = F.max_pool2d(x, 3, 2)
    for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
        x = getattr(network, f"Mixed_{name}")(x)
    return F.linear(F.avg_pool2d(x, 8).flatten(1), w["emb_cnn_code.weight"], w["emb_cnn_code.bias"])


def by_equations(w: dict[str, Tensor], numbers: list[int]) -> Tensor:
    """A two-way LSTM's last states, a gate at a time."""
    ends = []
    for way, order in (("", numbers), ("_reverse", numbers[::-1])):
        h, c = torch.zeros(128), torch.zeros(128)
        for i in order:
            x = w["encoder.weight"][i]
            gates = w[f"rnn.weight_ih_l0{way}"] @ x + w[f"rnn.bias_ih_l0{way}"]
            gates = gates + w[f"rnn.weight_hh_l0{way}"] @ h + w[f"rnn.bias_hh_l0{way}"]
            let_in, forget, new, out = gates.chunk(4)
            c = forget.sigmoid() * c + let_in.sigmoid() * new.tanh()
            h = out.sigmoid() * c.tanh()
        ends.append(h)
    return torch.cat(ends)


def test_pictures_are_encoded_as_by_attngans_layers(folder: Path, rng: torch.Generator) -> None:
    image = torch.rand(2, 3, 64, 64, generator=rng) * 2 - 1
    weights = torch.load(folder / "image_encoder100.pth", weights_only=True)
    reference = F.normalize(by_layers(weights, image), dim=-1)
    torch.testing.assert_close(Damsm(folder).encode_image(image), reference, atol=1e-5, rtol=0)


def test_captions_are_encoded_as_by_the_equations(folder: Path) -> None:
    damsm, weights = Damsm(folder), torch.load(folder / "text_encoder100.pth", weights_only=True)
    texts = ["A photo of a DOG, on the beach!", "cat", "a purple unknown café"]
    numbers = [[1, 2, 3, 1, 4, 8, 9, 10], [5], [1]]  # "caf" is what ASCII leaves of the last word
    reference = torch.stack([by_equations(weights, row) for row in numbers])
    torch.testing.assert_close(damsm.encode_text(texts), F.normalize(reference, dim=-1), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="no word of the caption 'purple rain'"):
        damsm.encode_text(["a dog", "purple rain"])


def test_a_run_has_its_r_precision_too(folder: Path, tmp_path: Path, models) -> None:
    captions = [text for text in sticker_scenes()[0] if "dog" in text or "cat" in text][:3]
    plan, store = Plan(captions, ("real",), budget("quick")), Folder(str(tmp_path))
    for _ in run(plan, store, partial(here, plan=plan, folder=store, models=models)):
        pass
    damsm = Damsm(folder)
    (with_it,) = summarise(plan, store, models, None, None, damsm=damsm).results
    (without,) = summarise(plan, store, models, None, None).results
    assert set(with_it.r_precision) == {"judge", "clip", "damsm"}
    assert without.r_precision["judge"].value == with_it.r_precision["judge"].value
    pictures = torch.stack([store_picture(store, plan, caption) for caption in captions])
    cosines = damsm.encode_image(pictures) @ damsm.encode_text(captions).T
    found = (cosines.argmax(1) == torch.arange(3)).double().mean()
    assert with_it.r_precision["damsm"].value == pytest.approx(float(found))


def store_picture(store: Folder, plan: Plan, caption: str) -> Tensor:
    """The picture of one caption, as it lies in the folder."""
    from torchvision.io import decode_image

    (name,) = [row["picture"] for row in store.records("real", 0).to_pylist() if row["caption"] == caption]
    (file,) = store.read([name])
    return decode_image(torch.frombuffer(bytearray(file), dtype=torch.uint8)) / 127.5 - 1


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("never",)


@pytest.mark.parametrize("content", [pickle.dumps([0, 0, 0, Evil()]), pickle.dumps([1]), b"", b"no pickle"])
def test_a_list_of_words_that_is_none_is_refused_and_runs_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("image_encoder100.pth", "text_encoder100.pth"):
        (tmp_path / name).symlink_to(folder / name)
    with pytest.raises(FileNotFoundError, match=r"0 files captions\.pickle"):
        Damsm(tmp_path)
    (tmp_path / "captions.pickle").write_bytes(content)
    with pytest.raises(ValueError, match="is not AttnGAN's list"):
        Damsm(tmp_path)
    assert not (tmp_path / "never").exists()
