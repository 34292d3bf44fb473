"""Classes by name, and a start among a few of them."""

from __future__ import annotations

from copy import copy

import pytest
import torch

from fusedream_nb.method.latents import top_k
from fusedream_nb.models import Models
from fusedream_nb.models.generators import FewClasses, imagenet, named, nearest_classes


def test_imagenets_names_are_in_its_order() -> None:
    """The order is that of the classes' synsets: a few whose numbers are well known."""
    names = imagenet()
    assert len(names) == 1000
    known = {
        0: "tench",
        1: "goldfish",
        151: "Chihuahua",
        207: "Golden Retriever",
        281: "tabby cat",
        954: "banana",
    }
    assert {number: names[number] for number in known} == known


def test_the_nearest_class_of_a_name_is_its_own(models: Models) -> None:
    names = models.generator.class_names
    assert names
    for number in range(0, len(names), 5):
        prompt = f"a photo of a {names[number]}."
        assert nearest_classes(prompt, names, models.clip, 3)[0] == number


def test_a_start_among_a_few_classes_has_no_others(models: Models, rng: torch.Generator) -> None:
    few = FewClasses(models.generator, [3, 7])
    latents = few(50, rng)
    allowed = models.generator.embeddings[[3, 7]]
    counts = (latents.y[:, None] == allowed).all(-1).sum(0)
    assert counts.sum() == 50 and counts.min() > 10
    again = few(50, torch.Generator().manual_seed(0))
    assert torch.equal(again.z, latents.z) and torch.equal(again.y, latents.y)

    def bright(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return images.mean((1, 2, 3))

    best, _ = top_k(models.generator, bright, 6, 2, rng, sample=few)
    assert (best.y[:, None] == allowed).all(-1).any(1).all()


def test_classes_that_there_are_not(models: Models) -> None:
    for wrong in ([], [-1], [100_000]):
        with pytest.raises(ValueError, match="must be some of 0 to"):
            FewClasses(models.generator, wrong)
    with pytest.raises(ValueError, match="at most all"):
        nearest_classes("a dog", ["dog"], models.clip, 2)


def test_a_noun_names_its_own_class_or_a_group_of_imagenets_or_none(models: Models) -> None:
    generator, rng = models.generator, torch.Generator()
    noun = generator.class_names[3]
    assert named(noun, generator).classes.tolist() == [3]
    assert named("no such thing", generator)(2, rng.manual_seed(1)).z.equal(
        generator.sample(2, rng.manual_seed(1)).z
    )
    thousand = copy(generator)
    thousand.class_names, thousand.embeddings = imagenet(), torch.zeros(1000, 2)
    assert named("dog", thousand).classes.tolist() == list(range(151, 269))
    assert [imagenet()[i] for i in named("cat", thousand).classes] == list(imagenet()[281:286])
    assert named("banana", thousand).classes.tolist() == [954]
