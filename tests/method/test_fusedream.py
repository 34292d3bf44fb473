"""The loop and FuseDream: bits, batches, limits, errors."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method.fusedream import climb
from fusedream_nb.method.latents import OverParameterised
from fusedream_nb.method.scores import Score
from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent, nearest_classes

SMALL = {"start_copies": 4, "judged_copies": 24, "M": 12, "k": 3, "steps": 4, "copies": 4, "lr": 5e-3}


class Parabola:
    """A generator whose picture is its latent, so that optima are known."""

    size = 1
    class_names = ()

    def sample(self, n: int, rng: torch.Generator) -> Latent:
        return Latent(torch.randn(n, 3, generator=rng))

    def decode(self, latent: Latent) -> Tensor:
        return latent.z[:, :, None, None]

    def project(self, latent: Latent) -> Latent:
        return Latent(latent.z.clamp(-2, 2))


class Near(Score):
    """Minus the squared distance to a point: its maximum is known."""

    def __init__(self, point: Tensor) -> None:
        self.point = point

    def __call__(self, image: Tensor, rng: object) -> Tensor:
        return -(image.flatten(1) - self.point).pow(2).sum(1)


def test_the_climb_finds_a_known_maximum_inside_and_stops_at_the_clamp(rng: torch.Generator) -> None:
    start = OverParameterised.start(Latent(torch.zeros(2, 1, 3)))
    start.weights[0].requires_grad_(False)
    target = torch.tensor([[0.5, -1.0, 1.5], [5.0, 0.0, -5.0]])
    *_, last = climb(Parabola(), Near(target), start, rng, steps=600, lr=0.05)
    torch.testing.assert_close(start.basis.z[:, 0].clamp(-2, 2), start.basis.z[:, 0])
    torch.testing.assert_close(last.image[0].flatten(), target[0], atol=0.02, rtol=0)
    assert last.best_score[0] > -1e-3


def test_k_1_is_plain_optimisation(models: Models) -> None:
    """One basis latent with its weight held at 1 is Adam on the latent itself."""
    latent = models.generator.sample(1, torch.Generator().manual_seed(8))
    score = fd.CLIPScore(models.clip, "a photo of a cat")
    over = OverParameterised.start(latent.map(lambda t: t[None]))
    frozen = OverParameterised(over.basis, [])
    frozen.combine = lambda: frozen.basis.map(lambda t: t[:, 0])  # type: ignore[method-assign]
    *_, mine = climb(models.generator, score, frozen, torch.Generator(), steps=3, lr=0.05)

    plain = latent.map(lambda t: t.clone().requires_grad_())
    adam = torch.optim.Adam(plain.tensors(), lr=0.05)
    for _ in range(3):
        adam.zero_grad()
        score(models.generator.decode(plain)).sum().neg().backward()
        adam.step()
        plain.z.data.clamp_(-2, 2)
    torch.testing.assert_close(mine.latent.z, plain.z.detach())
    torch.testing.assert_close(mine.image, models.generator.decode(plain).detach())


def test_one_seed_gives_the_same_bits(models: Models) -> None:
    a, b = ([*fd.fusedream("a photo of a blue dog", models, seed=3, **SMALL)] for _ in range(2))
    assert len(a) == 5
    for one, two in zip(a, b, strict=True):
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.score, two.score)
        assert torch.equal(one.best_image, two.best_image)
    *_, other = fd.fusedream("a photo of a blue dog", models, seed=4, **SMALL)
    assert not torch.equal(other.image, a[-1].image)


@pytest.mark.parametrize("weights", ["scalar", "coordinate"])
def test_a_batch_of_three_seeds_is_three_runs(models: Models, weights: str) -> None:
    *_, together = fd.fusedream("a castle in the sky", models, seed=[1, 2, 3], weights=weights, **SMALL)
    for i, seed in enumerate((1, 2, 3)):
        *_, alone = fd.fusedream("a castle in the sky", models, seed=seed, weights=weights, **SMALL)
        # Adam makes a step of any gradient, also of one that is all rounding.
        torch.testing.assert_close(together.image[i : i + 1], alone.image, atol=5e-3, rtol=0)
        torch.testing.assert_close(together.best_score[i : i + 1], alone.best_score, atol=1e-3, rtol=0)


def test_prompts_and_seeds_pair_up(models: Models) -> None:
    prompts = ["a red car", "a purple lion"]
    *_, two = fd.fusedream(prompts, models, seed=[5, 6], **SMALL)
    *_, second = fd.fusedream(prompts[1], models, seed=6, **SMALL)
    assert two.image.shape == (2, 3, 64, 64)
    torch.testing.assert_close(two.image[1:], second.image, atol=2e-3, rtol=0)


def test_prompts_of_one_seed_share_their_samples_and_nothing_else(models: Models) -> None:
    prompts = ["a red car", "a purple lion"]
    *_, two = fd.fusedream(prompts, models, seed=6, **SMALL)
    for i, prompt in enumerate(prompts):
        *_, alone = fd.fusedream(prompt, models, seed=6, **SMALL)
        torch.testing.assert_close(two.image[i : i + 1], alone.image, atol=2e-3, rtol=0)


def test_the_score_rises_and_the_best_is_never_worse(models: Models) -> None:
    steps = [*fd.fusedream("a photo of a red car", models, M=20, k=3, steps=20, copies=8, lr=0.03)]
    best = torch.cat([step.best_score for step in steps])
    assert (best.diff() >= 0).all()
    assert best[-1] > best[0]
    assert [step.index for step in steps] == list(range(21))
    seconds = [step.seconds for step in steps]
    assert seconds == sorted(seconds)


def test_steps_show_the_picture_after_their_update(models: Models) -> None:
    for step in islice(fd.fusedream("a frog", models, **SMALL), 3):
        with torch.no_grad():
            again = models.generator.decode(step.latent)
        torch.testing.assert_close(again, step.image, atol=1e-4, rtol=0)


def test_z_stays_in_the_valid_set_of_the_basis(models: Models) -> None:
    basis = models.generator.sample(2, torch.Generator().manual_seed(1)).map(lambda t: t[None])
    start = OverParameterised.start(basis)
    for _ in climb(
        models.generator, fd.CLIPScore(models.clip, "a fox"), start, torch.Generator(), steps=5, lr=0.5
    ):
        assert start.basis.z.abs().max() <= 2


def test_no_steps_give_the_start(models: Models) -> None:
    (only,) = fd.fusedream("a turtle", models, M=6, k=2, steps=0, copies=2)
    assert (only.index, only.total) == (0, 0)
    assert torch.equal(only.image, only.best_image)


def test_plain_begins_at_the_mean_of_the_basis_and_then_goes_its_own_way(models: Models) -> None:
    plain, over = (
        [*fd.fusedream("a turtle", models, weights=kind, M=6, k=3, steps=2, copies=2)]
        for kind in ("plain", "scalar")
    )
    torch.testing.assert_close(plain[0].image, over[0].image, atol=1e-4, rtol=0)
    assert not torch.equal(plain[-1].latent.z, over[-1].latent.z)


def test_the_start_may_come_from_the_nearest_classes(models: Models) -> None:
    prompts = ["a photo of a turtle", "a photo of a house"]
    (both,) = fd.fusedream(prompts, models, seed=3, y="nearest", M=8, k=1, steps=0, copies=2)
    generator = models.generator
    far = torch.cdist(both.latent.y, generator.embeddings).argmin(1).tolist()
    for i, prompt in enumerate(prompts):
        assert far[i] in nearest_classes(prompt, generator.class_names, models.clip)
        (alone,) = fd.fusedream(prompt, models, seed=3, y="nearest", M=8, k=1, steps=0, copies=2)
        torch.testing.assert_close(both.latent.y[i], alone.latent.y[0])
    assert nearest_classes(prompts[0], generator.class_names, models.clip, 1) == [
        generator.class_names.index("turtle")
    ]


def test_y_may_be_drawn_from_a_normal(models: Models) -> None:
    (start,) = fd.fusedream("a turtle", models, y="normal", M=5, k=1, steps=0, copies=2)
    assert start.latent.y is not None
    apart = torch.cdist(start.latent.y, models.generator.embeddings)
    assert apart.min() > 1


class Broken(Score):
    """A score that is not a number from its third call on."""

    calls = 0

    def __call__(self, image: Tensor, rng: object) -> Tensor:
        self.calls += 1
        return image.sum((1, 2, 3)) * (float("nan") if self.calls > 2 else 1.0)


def test_nan_stops_the_run_and_names_the_step(rng: torch.Generator) -> None:
    start = OverParameterised.start(Latent(torch.zeros(1, 1, 3)))
    run = climb(Parabola(), Broken(), start, rng, steps=9, fixed_score=Near(torch.zeros(1, 3)))
    with pytest.raises(FloatingPointError, match="not a finite number at step 2 of 9"):
        list(run)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prompt": "  \n"}, "The prompt is empty"),
        ({"prompt": []}, "The prompt is empty"),
        ({"steps": -1}, "steps must be 0 or more, not -1"),
        ({"k": 9, "M": 3}, "1 ≤ k ≤ M"),
        ({"copies": 0}, "at least 1, not 0"),
        ({"lr": 0.0}, "learning rate must be above 0"),
        ({"seed": -4}, "A seed is a whole number"),
        ({"prompt": ["a", "b"], "seed": [1, 2, 3]}, "2 prompts require one seed or as many, not 3"),
        ({"budget": "huge"}, "No budget is called 'huge'; known are smoke, quick, gallery, colab, paper"),
        ({"policy": ["blur"]}, "Unknown augmentation 'blur'"),
    ],
)
def test_bad_input_is_refused_at_the_call(
    models: Models, arguments: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        fd.fusedream(**{"prompt": "a dog", "models": models, **arguments})  # type: ignore[arg-type]
