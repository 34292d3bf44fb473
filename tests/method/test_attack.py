"""FGSM and its iterated form: the ball, the range, known optima."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method.attack import EPSILON, fgsm, pgd
from fusedream_nb.method.scores import Score
from fusedream_nb.models import Models

ROUNDING = 2e-7


class Linear(Score):
    """The inner product with fixed weights."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def __call__(self, image: Tensor, rng: object) -> Tensor:
        return (image * self.weights).sum((1, 2, 3))


class Hill(Score):
    """Minus the squared distance to a picture: concave."""

    def __init__(self, top: Tensor) -> None:
        self.top = top

    def __call__(self, image: Tensor, rng: object) -> Tensor:
        return -(image - self.top).square().sum((1, 2, 3))


class Spike(Score):
    """A score that is not a number away from one picture."""

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __call__(self, image: Tensor, rng: object) -> Tensor:
        away = (image - self.image).sum((1, 2, 3))
        return away * (float("nan") if bool(away.detach().abs().max() > 0) else 1.0)


def noise(n: int, side: int, rng: torch.Generator) -> Tensor:
    """Pictures of noise that reach the ends of the range."""
    return (3 * torch.rand(n, 3, side, side, generator=rng) - 1.5).clamp(-1, 1)


@given(
    st.integers(1, 3),
    st.floats(0, 3),
    st.integers(0, 5),
    st.one_of(st.none(), st.floats(1e-3, 5)),
    st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_the_ball_and_the_range_hold(
    n: int, epsilon: float, steps: int, size: float | None, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    image = noise(n, 6, rng)
    for step in pgd(image, Hill(noise(n, 6, rng)), rng, epsilon=epsilon, steps=steps, size=size):
        assert (step.image - image).abs().max() <= epsilon + ROUNDING
        assert (step.best_image - image).abs().max() <= epsilon + ROUNDING
        assert step.image.abs().max() <= 1


@given(st.floats(0, 2), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_one_step_is_the_optimum_of_a_linear_score(epsilon: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    image, weights = noise(2, 5, rng), torch.randn(3, 5, 5, generator=rng)
    optimum = torch.where(weights > 0, (image + epsilon).clamp(max=1), (image - epsilon).clamp(min=-1))
    attacked = fgsm(image, Linear(weights), rng, epsilon=epsilon)
    torch.testing.assert_close(attacked, optimum, atol=ROUNDING, rtol=0)


def test_one_iteration_is_fgsm(models: Models, pictures: Tensor, rng: torch.Generator) -> None:
    score = fd.CLIPScore(models.clip, "a photo of a cat")
    *_, last = pgd(pictures, score, rng, steps=1)
    image = pictures.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(image).sum(), image)
    torch.testing.assert_close(last.image, (pictures + EPSILON * gradient.sign()).clamp(-1, 1))
    assert torch.equal(fgsm(pictures, score, rng), last.image)


def test_on_a_hill_many_steps_reach_what_one_oversteps(rng: torch.Generator) -> None:
    image = 0.5 * noise(3, 8, rng)
    score = Hill(image + 0.1 * torch.rand(image.shape, generator=rng))
    once = score(fgsm(image, score, rng, epsilon=0.2), rng)
    *_, last = pgd(image, score, rng, epsilon=0.2, steps=60)
    assert (score(last.image, rng) > once).all()
    assert (last.best_score > 0.01 * score(image, rng)).all()  # next to the top, where it is 0


def test_a_steps_score_is_that_of_its_image_and_the_best_is_the_highest(rng: torch.Generator) -> None:
    image, score = noise(2, 8, rng), Hill(noise(2, 8, rng))
    steps = [*pgd(image, score, rng, epsilon=0.3, steps=7, size=0.4)]
    scores = torch.stack([step.score for step in steps])
    assert [(step.index, step.total) for step in steps] == [(i, 7) for i in range(8)]
    for step in steps:
        torch.testing.assert_close(step.score, score(step.image, rng))
        torch.testing.assert_close(step.latent.z, step.image - image)
        torch.testing.assert_close(step.best_score, scores[: step.index + 1].amax(0))
    torch.testing.assert_close(score(steps[-1].best_image, rng), steps[-1].best_score)


@pytest.mark.parametrize("numbers", [{"epsilon": 0.0}, {"steps": 0}])
def test_nothing_to_do_leaves_the_image(rng: torch.Generator, numbers: dict[str, float]) -> None:
    image = noise(1, 4, rng)
    *_, last = pgd(image, Hill(-image), rng, **numbers)  # type: ignore[arg-type]
    assert torch.equal(last.image, image)


def test_clip_can_be_attacked(models: Models, pictures: Tensor, rng: torch.Generator) -> None:
    score = fd.CLIPScore(models.clip, "a photo of a cat")
    with torch.no_grad():
        before = score(pictures)
    *_, last = pgd(pictures, score, rng, steps=8)
    assert (fgsm(pictures, score, rng).sub(pictures).abs() > 0).any()
    assert (last.best_score > before).all()


def test_the_given_image_is_left_as_it_was(rng: torch.Generator) -> None:
    image = noise(1, 4, rng)
    before = image.clone()
    attacked = fgsm(image, Hill(-image), rng)
    assert torch.equal(image, before) and not image.requires_grad
    assert not attacked.requires_grad


def test_what_is_not_a_number_stops_the_run(rng: torch.Generator) -> None:
    image = 0.5 * noise(1, 4, rng)
    with pytest.raises(FloatingPointError, match="not a finite number at step 1 of 4"):
        list(pgd(image, Spike(image), rng, steps=4))


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"epsilon": -0.1}, "must be 0 or more; got ε = -0.1"),
        ({"epsilon": float("nan")}, "must be 0 or more"),
        ({"steps": -1}, "0 or more"),
        ({"size": 0.0}, "must be above 0, not 0.0"),
    ],
)
def test_bad_numbers_are_refused_at_the_call(
    rng: torch.Generator, numbers: dict[str, float], sentence: str
) -> None:
    image = noise(1, 4, rng)
    with pytest.raises(ValueError, match=sentence):
        pgd(image, Hill(image), rng, **numbers)  # type: ignore[arg-type]


def test_pictures_in_another_range_are_refused(rng: torch.Generator) -> None:
    with pytest.raises(ValueError, match=r"leaves \[-1, 1\]"):
        fgsm(torch.full((1, 3, 4, 4), 255.0), Hill(torch.zeros(1, 3, 4, 4)), rng)
