"""The Clip adapter against open_clip itself, on the real ViT-B/32 and on the stickers' CLIP."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import save_file

from fusedream_nb.models import Models
from fusedream_nb.models.encoders import Clip

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[open_clip.CLIP, Clip]:
    """ViT-B/32 with random weights: open_clip's, and the adapter's from a local folder."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    model = open_clip.CLIP(**config).eval()
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    preprocess = {"mean": MEAN, "std": STD}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    return model, Clip.from_folder(folder)


def photo(width: int, height: int) -> Image.Image:
    """A smooth colourful picture."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    rgb = np.stack([np.sin(5 * x + 3 * y), np.cos(7 * y), np.sin(9 * x * y)], -1)
    return Image.fromarray(((rgb + 1) * 127.5).astype(np.uint8))


@pytest.mark.parametrize("size", [(224, 224), (300, 300), (320, 256)])
@torch.no_grad()
def test_preprocessing_equals_open_clips_transform(
    vit: tuple[open_clip.CLIP, Clip], size: tuple[int, int]
) -> None:
    model, clip = vit
    picture = photo(*size)
    transform = image_transform(224, is_train=False, mean=MEAN, std=STD)
    reference = torch.nn.functional.normalize(model.encode_image(transform(picture)[None]), dim=-1)
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    mine = clip.encode_image(tensor)
    # Pillow rounds to 8 bits after resizing; this path does not.
    assert (mine * reference).sum() > 0.9999


@torch.no_grad()
def test_text_equals_open_clips(vit: tuple[open_clip.CLIP, Clip]) -> None:
    model, clip = vit
    texts = ["a photo of a blue dog", 'Ünïcode 🦊, quotes " and\nnewlines']
    tokens = open_clip.get_tokenizer("ViT-B-32-quickgelu")(texts)
    reference = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(clip.encode_text(texts), reference, atol=1e-5, rtol=0)


def test_vectors_are_of_length_one_and_of_one_dimension(models: Models, pictures: torch.Tensor) -> None:
    for clip in (models.clip, models.judge):
        text = clip.encode_text(["a dog", "a red car on the beach"])
        image = clip.encode_image(pictures)
        torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
        torch.testing.assert_close(image.norm(dim=1), torch.ones(4))
        assert text.shape[1] == image.shape[1] == clip.dim


def test_a_vector_does_not_depend_on_its_batch(models: Models, pictures: torch.Tensor) -> None:
    together = models.clip.encode_image(pictures)
    alone = torch.cat([models.clip.encode_image(p[None]) for p in pictures])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_words_that_were_not_learnt_are_named_and_change_nothing(fresh_clip: Clip) -> None:
    with pytest.warns(UserWarning, match="the sticker CLIP has not learnt 'palace'; it will ignore it"):
        strange = fresh_clip.encode_text("a blue palace dog")
    assert torch.equal(strange, fresh_clip.encode_text("a blue dog"))
    with pytest.warns(UserWarning, match="ignores the rest"):
        fresh_clip.encode_text("a dog on grass " * 9)


@pytest.mark.parametrize("text", ["🐶", "?!", "—"])
def test_a_text_without_a_word_is_told(fresh_clip: Clip, text: str) -> None:
    with pytest.warns(UserWarning, match="finds no word in"):
        nothing = fresh_clip.encode_text(text)
    assert torch.equal(nothing, fresh_clip.encode_text(" "))


def test_synonyms_are_known_and_case_does_not_matter(
    fresh_clip: Clip, recwarn: pytest.WarningsRecorder
) -> None:
    a, b = fresh_clip.encode_text(["A Photo of a BOAT!", "a photo of a boat"])
    assert torch.equal(a, b)
    assert not recwarn.list
