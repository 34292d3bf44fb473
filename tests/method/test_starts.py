"""Other starts: y from N(0, I), without over-parameterisation, between two results."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fusedream_nb as fd
from fusedream_nb.method.fusedream import climb
from fusedream_nb.method.latents import OverParameterised, Plain, interpolate, normal_y, top_k
from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent


def test_normal_y_is_standard_and_leaves_z(models: Models) -> None:
    generator = models.generator
    mine = normal_y(generator)(4000, torch.Generator().manual_seed(1))
    theirs = generator.sample(4000, torch.Generator().manual_seed(1))
    assert torch.equal(mine.z, theirs.z)
    torch.testing.assert_close(mine.y.mean(0), torch.zeros(mine.y.shape[1]), atol=0.08, rtol=0)
    torch.testing.assert_close(mine.y.T.cov(), torch.eye(mine.y.shape[1]), atol=0.1, rtol=0)
    again = normal_y(generator)(4000, torch.Generator().manual_seed(1))
    assert torch.equal(mine.y, again.y)


@torch.no_grad()
def test_top_k_draws_from_the_law_that_is_given(models: Models) -> None:
    score, law = fd.CLIPScore(models.clip, "a photo of a cat"), normal_y(models.generator)
    kept, values = top_k(models.generator, score, 12, 3, torch.Generator().manual_seed(2), sample=law)
    everything = law(12, torch.Generator().manual_seed(2))
    order = score(models.generator.decode(everything)).argsort(descending=True)[:3]
    torch.testing.assert_close(kept.y, everything.y[order])
    torch.testing.assert_close(score(models.generator.decode(kept)), values, atol=1e-5, rtol=0)


def test_normal_y_wants_classes(rng: torch.Generator) -> None:
    class Unconditional:
        def sample(self, n: int, rng: torch.Generator) -> Latent:
            return Latent(torch.randn(n, 4, generator=rng))

    with pytest.raises(ValueError, match="requires a generator with classes"):
        normal_y(Unconditional())(2, rng)  # type: ignore[arg-type]


def test_plain_is_over_parameterised_with_one_latent_of_weight_1(
    models: Models, rng: torch.Generator
) -> None:
    latent, score = models.generator.sample(2, rng), fd.CLIPScore(models.clip, "a photo of a cat")
    over = OverParameterised.start(latent.map(lambda t: t[:, None]))
    over.parameters = lambda: over.basis.tensors()  # type: ignore[method-assign]
    runs = [
        [*climb(models.generator, score, start, rng, steps=3, lr=0.05)] for start in (Plain(latent), over)
    ]
    for mine, theirs in zip(*runs, strict=True):
        torch.testing.assert_close(mine.latent.z, theirs.latent.z)
        torch.testing.assert_close(mine.latent.y, theirs.latent.y)


def test_plain_stays_in_the_valid_set_and_leaves_what_it_was_given(
    models: Models, rng: torch.Generator
) -> None:
    latent = models.generator.sample(1, rng)
    before = latent.z.clone()
    for step in climb(
        models.generator, fd.CLIPScore(models.clip, "a fox"), Plain(latent), rng, steps=4, lr=1
    ):
        assert step.latent.z.abs().max() <= 2
    assert torch.equal(latent.z, before)


@given(st.integers(0, 2**32), st.lists(st.floats(0, 1), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_interpolation_is_the_line_between_its_ends(seed: int, alphas: list[float]) -> None:
    rng = torch.Generator().manual_seed(seed)
    first, second = (Latent(torch.randn(1, 5, generator=rng), torch.randn(1, 3, generator=rng)) for _ in "ab")
    between = interpolate(first, second, [1.0, *alphas, 0.0])
    share = torch.tensor([1.0, *alphas, 0.0])[:, None]
    for line, one, two in zip(between.tensors(), first.tensors(), second.tensors(), strict=True):
        torch.testing.assert_close(line, share * one + (1 - share) * two)
        assert torch.equal(line[:1], one) and torch.equal(line[-1:], two)


@torch.no_grad()
def test_interpolations_ends_are_the_two_results(models: Models, rng: torch.Generator) -> None:
    score = fd.CLIPScore(models.clip, ["a dog", "a castle"])
    with torch.enable_grad():
        *_, last = climb(models.generator, score, Plain(models.generator.sample(2, rng)), rng, steps=2)
    line = interpolate(last.latent[:1], last.latent[1:], torch.linspace(1, 0, 5))
    pictures = models.generator.decode(line)
    torch.testing.assert_close(pictures[[0, -1]], last.image, atol=1e-4, rtol=0)
    steps = (pictures[1:] - pictures[:-1]).abs().mean((1, 2, 3))
    assert steps.max() < (pictures[0] - pictures[-1]).abs().mean()


def test_interpolation_between_latents_a_layer(rng: torch.Generator) -> None:
    first, second = (Latent(torch.randn(1, 4, 5, generator=rng)) for _ in "ab")
    line = interpolate(first, second, [0.25])
    torch.testing.assert_close(line.z, 0.25 * first.z + 0.75 * second.z)


def test_bad_interpolations_are_refused(rng: torch.Generator) -> None:
    one, two = Latent(torch.zeros(1, 2)), Latent(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="two single latents, not 1 and 2"):
        interpolate(one, two, [0.5])
    with pytest.raises(ValueError, match=r"α must lie in \[0, 1\]; got -0.5 to 1"):
        interpolate(one, one, [-0.5, 1.0])
