"""The patch score and the run: limits, batches, descent, errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fusedream_nb.method.latents import OverParameterised
from fusedream_nb.method.ot import cost_scale, geodesic
from fusedream_nb.method.scores import PatchScore, encode_prompts
from fusedream_nb.method.transport import TransportStep, transport
from fusedream_nb.method.views import Cutouts
from fusedream_nb.models import Models

PROMPTS = ["a photo of a red car", "a photo of a blue dog"]
SMALL = {"steps": 3, "cutouts": Cutouts(6)}


def test_the_score_is_made_of_its_parts(models: Models, pictures: Tensor, rng: torch.Generator) -> None:
    score = PatchScore(models.clip, PROMPTS, Cutouts(8), loss="mean", distance="geodesic", weights=[3, 1])
    image = pictures[:2]
    value = score(image, rng)
    seen = score.seen
    assert seen is not None
    torch.testing.assert_close(value, -(seen.costs.mean(1) * torch.tensor([0.75, 0.25])).sum(1))
    whole = PatchScore(models.clip, PROMPTS, Cutouts(3, 1.0), distance="geodesic").match(
        image, PatchScore(models.clip, PROMPTS, Cutouts(3, 1.0)).sample(2, rng)
    )
    vectors, texts = models.clip.encode_image(image), models.clip.encode_text(PROMPTS)
    torch.testing.assert_close(whole.costs[:, 0], geodesic(vectors, texts), atol=1e-4, rtol=0)


@pytest.mark.parametrize("loss", ["transport", "mean"])
def test_the_loss_falls_along_its_own_gradient(
    models: Models, pictures: Tensor, rng: torch.Generator, loss: str
) -> None:
    score = PatchScore(models.clip, PROMPTS, Cutouts(12), loss=loss, epsilon=0.3)
    places = score.sample(2, rng)
    image = pictures[:2].clone().requires_grad_()
    before = score.match(image, places)
    (gradient,) = torch.autograd.grad(before.loss.sum(), image)
    length = gradient.flatten(1).norm(dim=1)
    moved = image - 1e-2 / length[:, None, None, None] * gradient
    after = score.match(moved.detach(), places)
    # ε is held for the gradient, so the fall to first order is that of ⟨P, C⟩ with the plan held.
    fall = (before.plan * (before.costs - after.costs)).sum((1, 2))
    torch.testing.assert_close(fall, 1e-2 * length, atol=1e-4, rtol=0.2)
    assert (after.loss < before.loss).all()


@pytest.mark.parametrize("loss", ["transport", "mean"])
def test_pictures_that_are_read_in_groups_match_as_in_one(
    models: Models, pictures: Tensor, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    score = PatchScore(models.clip, PROMPTS, Cutouts(8), loss=loss)
    places, image, weights = score.sample(3, rng), pictures[:3].clone(), torch.tensor([1.0, 2.0, -3.0])
    found = []
    for at_once in (24, 16, 1):
        monkeypatch.setattr(models.clip, "at_once", at_once)
        match = score.match(image.requires_grad_(), places)
        slope = torch.autograd.grad((weights * match.loss).sum(), image)[0]
        found.append((match.loss.detach(), match.costs, match.plan, match.tangents, slope))
        assert not score.match(image.detach(), places).loss.requires_grad
    for other in found[1:]:  # transport's plans agree to Sinkhorn's tolerance: a batch stops together
        torch.testing.assert_close(other, found[0], atol=1e-4, rtol=1e-2)


def test_transport_tells_patches_apart_and_the_mean_does_not(
    models: Models, pictures: Tensor, rng: torch.Generator
) -> None:
    matches = [
        PatchScore(models.clip, PROMPTS, Cutouts(32), loss=loss).match(
            pictures,
            PatchScore(models.clip, PROMPTS, Cutouts(32)).sample(4, torch.Generator().manual_seed(1)),
        )
        for loss in ("transport", "mean")
    ]
    assert matches[0].plan.std(1).min() > 100 * matches[1].plan.std(1).max()
    angles = [torch.atan2(m.tangents[..., 1], m.tangents[..., 0]) for m in matches]
    # Circular standard deviation: the arrows of the mean are nearly parallel, those of transport fan out.
    scatter = [(-2 * torch.exp(1j * a).mean(1).abs().log()).sqrt().mean() for a in angles]
    assert scatter[0] > 2 * scatter[1]


def test_a_prompt_may_be_an_image(models: Models, pictures: Tensor, rng: torch.Generator) -> None:
    vectors = encode_prompts(models.clip, ["a photo of a cat", pictures[0], pictures[1:2]])
    torch.testing.assert_close(vectors[1:], models.clip.encode_image(pictures[:2]), atol=1e-5, rtol=0)
    score = PatchScore(models.clip, ["a photo of a cat", pictures[0]], Cutouts(3, 1.0), loss="mean")
    score(pictures[:1], rng)
    assert score.seen is not None
    assert score.seen.costs[0, :, 1].max() < 1e-4


def test_a_distance_is_one_by_name_or_of_ones_own(
    models: Models, pictures: Tensor, rng: torch.Generator
) -> None:
    named, own = (PatchScore(models.clip, PROMPTS, Cutouts(4), distance=d) for d in ("geodesic", geodesic))
    places = named.sample(1, rng)
    assert torch.equal(*(score.match(pictures[:1], places).costs for score in (named, own)))
    with pytest.raises(ValueError, match="No distance is called 'l1'; known are cosine, geodesic"):
        PatchScore(models.clip, PROMPTS, distance="l1")


def test_a_negative_weight_turns_the_picture_away(models: Models) -> None:
    run = {"seed": 1, "steps": 6, "cutouts": Cutouts(8), "loss": "mean", "lr": 0.1}
    *_, towards = transport(PROMPTS, models, weights=[1, 1], **run)
    *_, away = transport(PROMPTS, models, weights=[1, -1], **run)
    assert away.costs[..., 1].mean() > towards.costs[..., 1].mean() + 0.02


def test_one_seed_gives_the_same_bits(models: Models) -> None:
    a, b = ([*transport(PROMPTS, models, seed=3, **SMALL)] for _ in range(2))
    assert [step.index for step in a] == [0, 1, 2, 3]
    for one, two in zip(a, b, strict=True):
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.plan, two.plan)
        assert torch.equal(one.tangents, two.tangents)


def test_a_batch_of_seeds_is_each_alone(models: Models) -> None:
    # At a low rate: rounding is what differs, and steep climbs on sharp pictures make much of it.
    *_, together = transport(PROMPTS, models, seed=[1, 2], loss="mean", lr=0.005, **SMALL)
    *_, alone = transport(PROMPTS, models, seed=2, loss="mean", lr=0.005, **SMALL)
    torch.testing.assert_close(together.image[1:], alone.image, atol=2e-3, rtol=0)
    torch.testing.assert_close(together.costs[1:], alone.costs, atol=2e-3, rtol=0)


def test_a_large_epsilon_is_a_run_of_the_mean(models: Models) -> None:
    """The drop-in replacement that the paper promises: only the plan differs."""
    *_, soft = transport(PROMPTS, models, epsilon=1e4, **SMALL)
    *_, mean = transport(PROMPTS, models, loss="mean", **SMALL)
    torch.testing.assert_close(soft.image, mean.image, atol=0.02, rtol=0)
    torch.testing.assert_close(soft.plan, mean.plan, atol=1e-4, rtol=0)


def test_a_step_carries_what_its_score_was_made_of(models: Models) -> None:
    steps = [*transport([*PROMPTS, "a castle"], models, weights=[2, 1, 1], **SMALL)]
    for step in steps:
        assert isinstance(step, TransportStep)
        assert step.costs.shape == step.plan.shape == step.tangents.shape == (1, 6, 3)
        epsilon = 0.1 * cost_scale(step.costs)
        gain = torch.xlogy(step.plan, step.plan * 6 / torch.tensor([0.5, 0.25, 0.25])).sum((1, 2))
        torch.testing.assert_close(-step.score, (step.plan * step.costs).sum((1, 2)) + epsilon * gain)
        torch.testing.assert_close(step.plan.sum(1), torch.tensor([[0.5, 0.25, 0.25]]), atol=0, rtol=5e-3)
    score = PatchScore(models.clip, [*PROMPTS, "a castle"], Cutouts(6))
    again = score.match(steps[2].image, steps[2].places)
    torch.testing.assert_close(again.costs, steps[2].costs, atol=1e-4, rtol=0)


def test_the_loss_falls_over_a_run(models: Models) -> None:
    steps = [*transport(PROMPTS, models, seed=1, steps=15, cutouts=Cutouts(12), M=4)]
    assert steps[-1].best_score > steps[0].best_score
    assert steps[-1].costs.mean() < steps[0].costs.mean()


def test_a_run_begins_where_it_is_told(models: Models) -> None:
    latent = models.generator.sample(2, torch.Generator().manual_seed(7))
    (only,) = transport(PROMPTS, models, seed=[0, 1], steps=0, cutouts=Cutouts(2), start=latent)
    torch.testing.assert_close(only.latent.z, latent.z)
    start = OverParameterised.start(latent.map(lambda t: t[None]))
    *_, last = transport(PROMPTS, models, steps=2, cutouts=Cutouts(4), start=start)
    assert last.image.shape == (1, 3, 64, 64)
    assert not torch.equal(start.weights[0], torch.full((1, 2), 0.5))


def test_more_samples_start_nearer(models: Models) -> None:
    few, many = (next(iter(transport(PROMPTS, models, seed=5, cutouts=Cutouts(6), M=M))) for M in (1, 12))
    assert many.score > few.score


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prompts": []}, "There is no prompt"),
        ({"prompts": ["a dog", " "]}, "The prompt is empty"),
        ({"prompts": [torch.zeros(64, 64)]}, "has the shape \\[3, h, w\\], not \\[64, 64\\]"),
        ({"prompts": [torch.full((3, 8, 8), 7.0)]}, "lies in \\[-1, 1\\]"),
        ({"epsilon": 0.0}, "ε must be a finite number above 0, not 0.0"),
        ({"epsilon": math.inf}, "ε must be a finite number above 0, not inf"),
        ({"loss": "median"}, "No loss is called 'median'; known are transport, mean"),
        ({"weights": [1, 2, 3]}, "2 prompts require 2 weights, not 3"),
        ({"weights": [1, -1]}, "only the mean loss takes negative ones"),
        ({"lr": 0.0}, "learning rate must be above 0"),
        ({"steps": -1}, "steps must be 0 or more"),
        ({"seed": -1}, "A seed is a whole number"),
        ({"M": 0}, "M must be at least 1, not 0"),
    ],
)
def test_bad_input_is_refused_at_the_call(
    models: Models, arguments: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        transport(**{"prompts": PROMPTS, "models": models, **arguments})  # type: ignore[arg-type]


def test_a_start_fits_the_seeds(models: Models, rng: torch.Generator) -> None:
    latent = models.generator.sample(2, rng)
    with pytest.raises(ValueError, match="1 pictures require a start of 1 latents, not 2"):
        transport(PROMPTS, models, start=latent)
    with pytest.raises(ValueError, match="nothing to search for"):
        transport(PROMPTS, models, start=latent[:1], M=5)
