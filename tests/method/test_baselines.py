"""The baselines: naive Adam against Adam written out, BigSleep part by part."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method.baselines import (
    TEMPERATURE,
    Average,
    CropCLIP,
    LayerLatents,
    big_sleep,
    crop,
    departure,
    draw_crops,
    naive_adam,
)
from fusedream_nb.method.fusedream import climb
from fusedream_nb.method.latents import Plain
from fusedream_nb.models import Models
from fusedream_nb.models.biggan import BigGANDeep


def rngs(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_naive_adam_is_adam_on_clip_from_one_random_latent(models: Models) -> None:
    *_, mine = naive_adam("a photo of a cat", models, seed=8, steps=3, lr=0.05)
    latent = models.generator.sample(1, rngs(8)[0]).map(lambda t: t.clone().requires_grad_())
    score = fd.CLIPScore(models.clip, "a photo of a cat")
    adam = torch.optim.Adam(latent.tensors(), lr=0.05)
    for _ in range(3):
        adam.zero_grad()
        score(models.generator.decode(latent)).sum().neg().backward()
        adam.step()
        latent.z.data.clamp_(-2, 2)
    torch.testing.assert_close(mine.latent.z, latent.z.detach())
    torch.testing.assert_close(mine.image, models.generator.decode(latent).detach())


def test_naive_runs_of_a_batch_are_the_runs_alone(models: Models) -> None:
    prompts = ["a red car", "a purple lion"]
    *_, both = naive_adam(prompts, models, seed=[5, 6], steps=2, lr=5e-3)
    *_, second = naive_adam(prompts[1], models, seed=6, steps=2, lr=5e-3)
    torch.testing.assert_close(both.image[1:], second.image, atol=2e-3, rtol=0)


def test_equal_steps_cost_the_generator_what_a_run_costs(models: Models) -> None:
    sizes = fd.budget("quick")
    forward, forward_and_backward = 1, 3
    whole = sizes.M * forward + sizes.steps * forward_and_backward
    assert abs(sizes.equal_steps * forward_and_backward - whole) < forward_and_backward
    first = next(naive_adam("a dog", models, budget=replace(sizes, M=30, steps=7)))
    assert first.total == 17


def test_evaluations_are_the_pictures_that_a_run_draws(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, decode = [], BigGANDeep.decode
    monkeypatch.setattr(BigGANDeep, "decode", lambda self, x: drawn.append(len(x)) or decode(self, x))
    sizes = replace(fd.budget("quick"), M=9, k=2, steps=3, copies=2, judged_copies=2)
    list(fd.fusedream("a dog", models, budget=sizes))
    assert sum(drawn) == sizes.evaluations == 13


def test_a_climb_from_a_given_latent_starts_with_its_picture(models: Models, rng: torch.Generator) -> None:
    """Case Study 2: from a dog's latent, which stays as it was."""
    dog = models.generator.sample(1, rng)
    before = dog.map(lambda t: t.clone())
    with torch.no_grad():
        picture = models.generator.decode(dog)
    score = fd.CLIPScore(models.clip, "a photo of a cat")
    (only,) = climb(models.generator, score, Plain(dog), rng, steps=0)
    assert torch.equal(only.image, picture) and torch.equal(only.best_image, picture)
    steps = [*climb(models.generator, score, Plain(dog), rng, steps=3, lr=0.05)]
    assert torch.equal(steps[0].latent.z, dog.z)  # a Step keeps what it was given, whatever follows
    assert not torch.equal(steps[-1].latent.y, dog.y)
    assert torch.equal(dog.z, before.z) and torch.equal(dog.y, before.y)


@given(st.integers(1, 3), st.floats(0.01, 30), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_class_embeddings_are_convex_combinations(n: int, spread: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(7, 4, generator=rng)
    latents = LayerLatents(torch.zeros(n, 5, 6), spread * torch.randn(n, 5, 7, generator=rng), embeddings)
    weights = latents.classes()
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(n, 5))
    y = latents.combine().y
    torch.testing.assert_close(y, torch.einsum("nlc,cd->nld", weights, embeddings))
    assert (y <= embeddings.amax(0) + 1e-5).all() and (y >= embeddings.amin(0) - 1e-5).all()


def test_sure_logits_give_the_class_itself_and_equal_ones_the_mean() -> None:
    embeddings = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    logits = torch.zeros(1, 2, 4)
    logits[0, 0, 2] = 60 * TEMPERATURE
    y = LayerLatents(torch.zeros(1, 2, 3), logits, embeddings).combine().y
    torch.testing.assert_close(y[0, 0], embeddings[2])
    torch.testing.assert_close(y[0, 1], embeddings.mean(0))


@given(st.floats(0, 0.999), st.lists(st.floats(-9, 9), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_the_average_is_the_weighted_mean_it_says(decay: float, numbers: list[float]) -> None:
    average = Average([torch.zeros(2)], decay)
    for number in numbers:
        average.update([torch.full((2,), number)])
    weights = [decay ** (len(numbers) - 1 - i) for i in range(len(numbers))]
    expected = sum(w * x for w, x in zip(weights, numbers, strict=True)) / sum(weights)
    torch.testing.assert_close(average.value[0], torch.full((2,), expected), atol=1e-4, rtol=1e-4)


def test_the_latents_own_law_costs_nothing_and_others_do() -> None:
    many = torch.randn(4, 3, 200_000, generator=torch.Generator().manual_seed(0))
    assert (departure(many) < 0.05).all()
    (wide, shifted, flat) = departure(torch.stack([3 * many[0], many[1] + 2, many[2].sign()]))
    assert wide == pytest.approx(2 + 4 * 8, rel=0.02)  # |1 - 3|, and 4 (9 - 1)
    assert shifted == pytest.approx(2 + 4 * 4, rel=0.02)
    assert flat == pytest.approx(2, rel=0.02)  # the kurtosis of two values is 1, and 3 was asked


def test_crops_read_where_they_say() -> None:
    """On a picture that is its own map of places, a crop's mean is the place of its middle."""
    places = (torch.arange(32) + 0.5) / 32
    image = torch.stack([places.expand(32, 32), places[:, None].expand(32, 32), torch.zeros(32, 32)])[None]
    numbers = torch.tensor([[[0.5, 0.25, 0.5], [0.75, 0.0, 0.125], [1.0, 0.0, 0.0]]])
    parts = crop(image, numbers, 16)
    assert parts.shape == (3, 3, 16, 16)
    middles = numbers[0, :, 1:] + numbers[0, :, :1] / 2
    torch.testing.assert_close(parts.mean((2, 3))[:, :2], middles, atol=1e-3, rtol=0)
    torch.testing.assert_close(crop(image, numbers[:, 2:], 32), image, atol=1e-6, rtol=0)


def test_crops_stay_inside_and_spread_as_big_sleeps() -> None:
    numbers = draw_crops(1, 20_000, *rngs(3))[0]
    share, place = numbers[:, :1], numbers[:, 1:]
    assert (place >= 0).all() and (place + share <= 1 + 1e-6).all()
    assert share.min() == 0.5 and share.max() == pytest.approx(0.95)
    assert (share == 0.5).float().mean() == pytest.approx(0.1587, abs=0.01)  # P(N < -1)
    assert (share > 0.949).float().mean() == pytest.approx(0.3085, abs=0.01)  # P(N > 1/2)
    torch.testing.assert_close((place / (1 - share)).mean(0), torch.full((2,), 0.5), atol=0.01, rtol=0)


def test_crop_clip_is_the_mean_over_its_crops(models: Models, pictures: Tensor) -> None:
    numbers = draw_crops(1, 5, *rngs(2))
    score = CropCLIP(models.clip, "a cat", 5, fixed=numbers)
    each = fd.CLIPScore(models.clip, "a cat")(crop(pictures[:1], numbers, models.clip.size))
    torch.testing.assert_close(score(pictures, *rngs(0))[0], each.mean())
    whole = CropCLIP(models.clip, "a cat", 1, fixed=torch.tensor([[[1.0, 0.0, 0.0]]]))
    plain = fd.CLIPScore(models.clip, "a cat")(pictures)
    torch.testing.assert_close(whole(pictures, *rngs(0)), plain, atol=1e-4, rtol=0)


def test_big_sleep_shows_the_best_picture_of_the_average(models: Models) -> None:
    steps = [*big_sleep("a photo of a red car", models, seed=1, steps=6, copies=3)]
    assert [step.index for step in steps] == list(range(7))
    generator = models.generator
    assert isinstance(generator, BigGANDeep)
    assert steps[0].latent.z.shape == (1, generator.layers, generator.z_dim)
    with torch.no_grad():
        start = LayerLatents.start(generator, rngs(1)).combine()
        torch.testing.assert_close(steps[0].best_image, generator.decode(start), atol=1e-4, rtol=0)
        again = generator.decode(steps[-1].latent)
    torch.testing.assert_close(again, steps[-1].image, atol=1e-4, rtol=0)
    assert steps[-1].latent.z.abs().max() <= 2
    assert not torch.equal(steps[-1].best_image, steps[-1].image)
    assert (torch.cat([step.best_score for step in steps]).diff() >= 0).all()


def test_big_sleep_climbs(models: Models) -> None:
    steps = [*big_sleep("a photo of a blue dog", models, seed=2, steps=16, copies=3)]
    first, last = (fd.CLIPScore(models.clip, "a photo of a blue dog")(steps[i].image) for i in (0, -1))
    assert last > first
    assert steps[-1].best_score > steps[0].best_score


def test_big_sleeps_runs_of_a_batch_are_the_runs_alone_and_repeat(models: Models) -> None:
    prompts = ["a castle", "a frog"]
    *_, both = big_sleep(prompts, models, seed=[3, 4], steps=2, copies=2)
    *_, second = big_sleep(prompts[1], models, seed=4, steps=2, copies=2)
    *_, again = big_sleep(prompts[1], models, seed=4, steps=2, copies=2)
    torch.testing.assert_close(both.best_image[1:], second.best_image, atol=2e-3, rtol=0)
    assert torch.equal(second.image, again.image) and torch.equal(second.best_image, again.best_image)


def test_bad_input_is_refused_at_the_call(models: Models) -> None:
    for method in (naive_adam, big_sleep):
        with pytest.raises(ValueError, match="The prompt is empty"):
            method(" ", models)
        with pytest.raises(ValueError, match="steps must be 0 or more, not -1"):
            method("a dog", models, steps=-1)
        with pytest.raises(ValueError, match="learning rate must be above 0"):
            method("a dog", models, lr=0.0)
        with pytest.raises(ValueError, match="No budget is called 'huge'"):
            method("a dog", models, budget="huge")
    with pytest.raises(ValueError, match="at least 1, not 0"):
        big_sleep("a dog", models, copies=0)
    with pytest.raises(TypeError, match="BigSleep requires a BigGAN-deep"):
        big_sleep("a dog", replace(models, generator=object()))  # type: ignore[arg-type]


def test_both_are_driven_by_whoever_asks(models: Models) -> None:
    for method in (naive_adam, big_sleep):
        assert [step.index for step in islice(method("a fox", models, steps=1000), 2)] == [0, 1]
