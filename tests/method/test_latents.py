"""The start and the over-parameterised latent."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fusedream_nb as fd
from fusedream_nb.method import views
from fusedream_nb.method.latents import OverParameterised, top_k
from fusedream_nb.models import Models
from fusedream_nb.models.compute import PIXEL, pictures_at_once
from fusedream_nb.models.generators import Latent


@torch.no_grad()
def test_top_k_is_the_sort_of_all_however_it_is_batched(models: Models) -> None:
    score = fd.CLIPScore(models.clip, "a photo of a cat")
    everything = models.generator.sample(40, torch.Generator().manual_seed(2))
    values = score(models.generator.decode(everything))
    order = values.argsort(descending=True)[:5]
    for batch in (40, 7):
        kept, scores = top_k(models.generator, score, 40, 5, torch.Generator().manual_seed(2), batch=batch)
        torch.testing.assert_close(kept.z, everything.z[order])
        torch.testing.assert_close(scores, values[order], atol=1e-5, rtol=0)


def test_a_table_of_scores_starts_each_text_as_alone(models: Models) -> None:
    texts = ["a photo of a cat", "a photo of a red castle"]
    fixed = views.sample(1, 3, torch.Generator().manual_seed(4))
    together = fd.AugCLIP(models.clip, texts, 3, fixed=fixed)
    found, scores = top_k(models.generator, together.table, 30, 4, torch.Generator().manual_seed(5))
    assert scores.shape == (2, 4)
    for i, text in enumerate(texts):
        alone = fd.AugCLIP(models.clip, text, 3, fixed=fixed)
        latents, values = top_k(models.generator, alone, 30, 4, torch.Generator().manual_seed(5))
        torch.testing.assert_close(found.z[i], latents.z)
        torch.testing.assert_close(scores[i], values, atol=1e-5, rtol=0)


def test_more_samples_start_higher(models: Models) -> None:
    score = fd.CLIPScore(models.clip, "a photo of a castle")
    few, many = (
        torch.stack(
            [top_k(models.generator, score, M, 1, torch.Generator().manual_seed(s))[1] for s in range(6)]
        )
        for M in (2, 60)
    )
    assert many.mean() > few.mean()


@pytest.mark.parametrize(("M", "k"), [(3, 4), (3, 0)])
def test_k_of_m_is_checked(models: Models, rng: torch.Generator, M: int, k: int) -> None:
    with pytest.raises(ValueError, match="1 ≤ k ≤ M"):
        top_k(models.generator, fd.CLIPScore(models.clip, "a dog"), M, k, rng)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_scalar_weights_start_at_the_mean_and_combine_linearly(n: int, k: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    basis = Latent(torch.randn(n, k, 8, generator=rng), torch.randn(n, k, 8, generator=rng))
    latent = OverParameterised.start(basis)
    torch.testing.assert_close(latent.combine().z, basis.z.mean(1))
    latent.weights[0].copy_(torch.randn(n, k, generator=rng))
    expected = torch.einsum("nk,nkd->nd", latent.weights[0], basis.y)
    torch.testing.assert_close(latent.combine().y, expected)


def test_latents_may_be_grids(rng: torch.Generator) -> None:
    grids = Latent(torch.randn(2, 3, 4, 5, 5, generator=rng))
    torch.testing.assert_close(OverParameterised.start(grids).combine().z, grids.z.mean(1))


def test_coordinate_weights_are_convex_and_each_runs_own(rng: torch.Generator) -> None:
    basis = Latent(torch.randn(2, 5, 8, generator=rng), torch.randn(2, 5, 8, generator=rng))
    rngs = [torch.Generator().manual_seed(s) for s in (1, 2)]
    combined = OverParameterised.start(basis, "coordinate", rngs).combine()
    assert (combined.z <= basis.z.amax(1)).all() and (combined.z >= basis.z.amin(1)).all()
    second = OverParameterised.start(basis[1:], "coordinate", [torch.Generator().manual_seed(2)])
    torch.testing.assert_close(second.combine().y, combined.y[1:])


def test_the_start_does_not_change_what_it_was_given(models: Models, rng: torch.Generator) -> None:
    basis = models.generator.sample(3, rng).map(lambda t: t[None])
    before = basis.z.clone()
    latent = OverParameterised.start(basis)
    latent.basis.z.mul_(5)
    latent.project_(models.generator)
    assert latent.basis.z.abs().max() == 2
    assert torch.equal(basis.z, before)


def test_a_start_draws_no_more_pictures_together_than_half_of_a_gpus_free_memory_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = {"memory_reserved": 3 * 2**30, "memory_allocated": 2**30}
    for name, value in kept.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    gpu = torch.device("cuda")

    def at_once(free: int, size: int) -> int:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 * 2**30))
        return pictures_at_once(size, gpu)

    for size in (128, 256, 512):
        for free in (0, 2**30, 4 * 2**30, 70 * 2**30):
            n = at_once(free, size)
            assert n == 2 or n * size**2 * PIXEL * 2 <= free + 2 * 2**30
            assert n <= max(2, 32 * 256**2 // size**2)
    assert at_once(70 * 2**30, 256) == 32 > at_once(2**30, 256) > 2
    assert pictures_at_once(64, torch.device("cpu")) == 16
    assert pictures_at_once(512, torch.device("cpu")) == 2
