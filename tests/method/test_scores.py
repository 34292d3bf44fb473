"""CLIP and AugCLIP: limits, linearity, ascent."""

from __future__ import annotations

import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.method import views
from fusedream_nb.method.scores import Score
from fusedream_nb.models import Models


def test_clip_score_is_the_cosine(models: Models, pictures: torch.Tensor) -> None:
    text, image = models.clip.encode_text("a photo of a dog")[0], models.clip.encode_image(pictures)
    reference = torch.nn.functional.cosine_similarity(image, text[None])
    torch.testing.assert_close(fd.CLIPScore(models.clip, "a photo of a dog")(pictures), reference)


def test_augclip_without_augmentation_is_clip(
    models: Models, pictures: torch.Tensor, rng: torch.Generator
) -> None:
    plain = fd.CLIPScore(models.clip, "a cat")(pictures)
    same = fd.AugCLIP(models.clip, "a cat", copies=3, policy=())(pictures, rng)
    torch.testing.assert_close(same, plain, atol=1e-4, rtol=0)


def test_augclip_is_the_mean_over_its_copies(
    models: Models, pictures: torch.Tensor, rng: torch.Generator
) -> None:
    numbers = views.sample(1, 6, rng)
    score = fd.AugCLIP(models.clip, "a cat", copies=6, fixed=numbers)
    copies = views.augment(pictures[:1], numbers, models.clip.size)
    each = fd.CLIPScore(models.clip, "a cat")(copies)
    torch.testing.assert_close(score(pictures[:1], rng)[0], each.mean())


def test_more_copies_scatter_less(models: Models, pictures: torch.Tensor, rng: torch.Generator) -> None:
    image = pictures[:1].expand(40, -1, -1, -1)
    few = fd.AugCLIP(models.clip, "a dog", copies=2)(image, rng).std()
    many = fd.AugCLIP(models.clip, "a dog", copies=32)(image, rng).std()
    assert many < 0.5 * few  # 0.25 in the limit


def test_one_text_an_image(models: Models, pictures: torch.Tensor) -> None:
    texts = ["a dog", "a cat", "a car", "a fish"]
    together = fd.CLIPScore(models.clip, texts)(pictures)
    alone = [fd.CLIPScore(models.clip, t)(p[None])[0] for t, p in zip(texts, pictures, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=0)


def test_scores_add_and_scale(models: Models, pictures: torch.Tensor, rng: torch.Generator) -> None:
    a, b = fd.CLIPScore(models.clip, "a dog"), fd.CLIPScore(models.clip, "a cat")
    mixed = (a + 0.1 * b) * 2
    torch.testing.assert_close(mixed(pictures, rng), 2 * a(pictures) + 0.2 * b(pictures))


@pytest.mark.parametrize("kind", ["clip", "augclip"])
def test_a_score_rises_along_its_own_gradient(
    models: Models, pictures: torch.Tensor, rng: torch.Generator, kind: str
) -> None:
    fixed = views.sample(1, 8, rng)
    score: Score = (
        fd.CLIPScore(models.clip, "a photo of a cat")
        if kind == "clip"
        else fd.AugCLIP(models.clip, "a photo of a cat", 8, fixed=fixed)
    )
    image = pictures.clone().requires_grad_()
    before = score(image, rng)
    (gradient,) = torch.autograd.grad(before.sum(), image)
    step = 1e-3 / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    after = score(image + step * gradient, rng)
    assert (after > before).all()
    # To first order the rise is the step times the gradient's length squared.
    expected = 1e-3 * gradient.flatten(1).norm(dim=1)
    torch.testing.assert_close(after - before, expected, atol=1e-4, rtol=0.2)


def test_a_score_without_a_rule_says_so(pictures: torch.Tensor, rng: torch.Generator) -> None:
    with pytest.raises(TypeError, match="define __call__"):
        Score()(pictures, rng)
