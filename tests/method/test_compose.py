"""Composition on the real models: gradients, runs, batches, best pictures, errors."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method import views
from fusedream_nb.method.barrier import RULES, bilevel, rule, two_gradients
from fusedream_nb.method.compose import ComposeStep, compose, fused
from fusedream_nb.method.fusedream import FIXED_SEED
from fusedream_nb.method.latents import OverParameterised
from fusedream_nb.method.placement import Placement, Placements, crop, paste, poisson, shrink
from fusedream_nb.method.run import Step
from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent

PROMPT = "an elephant on top of a house"
SMALL = {"M": 6, "k": 2, "steps": 4, "copies": 2, "lr": 5e-3}
THREE = (Placement.at(0.5, "left", "top"), Placement.at(0.65), Placement.at(0.5, "right", "bottom"))


@pytest.fixture(scope="module")
def runs(models: Models) -> object:
    """Short runs, each made once: its steps by its arguments."""

    @cache
    def run(**arguments: object) -> list[ComposeStep]:
        return list(compose(PROMPT, models, **{"placements": THREE, **SMALL, **arguments}))

    return run


class Scene:
    """Two places' compositions with fixed augmentations, as plain functions of their variables."""

    def __init__(self, models: Models) -> None:
        self.models, rng = models, torch.Generator().manual_seed(3)
        self.starts = [
            OverParameterised.start(models.generator.sample(4, rng).map(lambda t: t.unflatten(0, (2, 2))))
            for _ in range(2)
        ]
        self.parameters = [p.requires_grad_() for start in self.starts for p in start.parameters()]
        self.score = fd.AugCLIP(models.clip, PROMPT, 6, fixed=views.sample(1, 6, rng))

    def values(self) -> tuple[Tensor, Tensor]:
        pictures = self.models.generator.decode(Latent.cat([start.combine() for start in self.starts]))
        places = (THREE[0], THREE[2])
        _, score, loss = fused(*pictures.chunk(2), places, self.score, self.models.perceptual, [])
        return loss, score

    @torch.no_grad()
    def move(self, direction: Tensor, length: float) -> None:
        """Take a plain step x ← x - length · v, without Adam."""
        parts = direction.split([p[0].numel() for p in self.parameters], 1)
        for p, part in zip(self.parameters, parts, strict=True):
            p -= length * part.view_as(p)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_on_real_gradients_a_plain_step_raises_the_score_as_promised(models: Models, beta: float) -> None:
    scene = Scene(models)
    before = scene.values()
    of_loss, of_score = two_gradients(*before, scene.parameters)
    v, _ = bilevel(of_loss, of_score, beta)
    square = of_score.square().sum(1)
    slack = 1e-4 * (v.norm(dim=1) * of_score.norm(dim=1))
    assert (of_loss.norm(dim=1) > 0).all() and (square > 0).all()
    assert ((v * of_score).sum(1) <= -beta * square + slack).all()
    length = 1e-4 / float(v.norm(dim=1).max())
    scene.move(v, length)
    with torch.no_grad():
        rise = scene.values()[1] - before[1].detach()
    # To first order the score rises by the step times -⟨v, ∇s⟩; AugCLIP is curved, so allow for it.
    expected = -length * (v * of_score).sum(1)
    torch.testing.assert_close(rise, expected, atol=2e-6, rtol=0.1)


def test_plain_steps_of_the_barrier_raise_the_score_each_time(models: Models) -> None:
    scene, scores = Scene(models), []
    for _ in range(6):
        loss, score = scene.values()
        scores.append(score.detach())
        v, _ = bilevel(*two_gradients(loss, score, scene.parameters), 5.0)
        scene.move(v, 2e-3 / float(v.norm(dim=1).max()))
    assert (torch.stack(scores).diff(dim=0) > 0).all()


def test_the_fused_values_are_augclip_of_the_paste_and_lpips_under_it(
    models: Models, pictures: Tensor, rng: torch.Generator
) -> None:
    score = fd.AugCLIP(models.clip, PROMPT, 3, fixed=views.sample(1, 3, rng))
    place = THREE[0]
    image, s, loss = fused(pictures[:1], pictures[1:2], [place], score, models.perceptual, rng)
    assert torch.equal(image, paste(pictures[:1], pictures[1:2], place))
    torch.testing.assert_close(s, score(image, rng))
    under = crop(pictures[1:2], place)
    torch.testing.assert_close(loss, models.perceptual(shrink(pictures[:1], place.box(64, 64)), under))
    inside = paste(under, pictures[1:2], place)
    assert fused(under, inside, [place], score, models.perceptual, rng)[2].abs().max() < 1e-6


def test_steps_are_steps_and_show_their_own_pictures(models: Models, runs: object) -> None:
    steps = runs()
    assert [step.index for step in steps] == list(range(5))
    for step in (steps[0], steps[-1]):
        assert isinstance(step, Step)
        assert step.image.shape == (3, 3, 64, 64)
        with torch.no_grad():
            foreground = models.generator.decode(step.latent)
            background = models.generator.decode(step.latent_background)
        torch.testing.assert_close(step.foreground, foreground, atol=1e-4, rtol=0)
        torch.testing.assert_close(step.background, background, atol=1e-4, rtol=0)
        assert torch.equal(step.image, paste(step.foreground, step.background, step.placements))
        for i, place in enumerate(step.placements):
            small = shrink(step.foreground[i : i + 1], place.box(64, 64))
            alone = models.perceptual(small, crop(step.background[i : i + 1], place))
            torch.testing.assert_close(step.loss[i : i + 1], alone, atol=1e-3, rtol=1e-3)


def test_all_placements_start_from_one_pair_with_the_same_randomness(runs: object) -> None:
    first = runs()[0]
    assert (first.foreground - first.foreground[:1]).abs().max() < 1e-4
    assert (first.background - first.background[:1]).abs().max() < 1e-4
    assert (first.foreground - first.background).abs().mean() > 0.05


def test_a_placement_among_others_is_the_same_as_alone(models: Models, runs: object) -> None:
    together, alone = runs()[-1], runs(placements=THREE[2])[-1]
    run = compose(PROMPT, models, placements=THREE, **SMALL)
    run.batch = 1
    *_, batched = run
    torch.testing.assert_close(together.image, batched.image, atol=2e-2, rtol=0)
    torch.testing.assert_close(together.image[2:], alone.image, atol=2e-2, rtol=0)
    torch.testing.assert_close(together.best_score[2:], alone.best_score, atol=2e-3, rtol=0)


def test_one_seed_gives_the_same_bits_and_another_seed_others(models: Models, runs: object) -> None:
    again = [*compose(PROMPT, models, placements=THREE, **SMALL)][-1]
    assert torch.equal(again.image, runs()[-1].image)
    assert not torch.equal(again.image, runs(seed=1)[-1].image)


def test_the_best_is_by_the_fixed_augmentations_and_never_falls(models: Models, runs: object) -> None:
    steps = runs()
    best = torch.stack([step.best_score for step in steps])
    assert (best.diff(dim=0) >= 0).all()
    last, copies = steps[-1], fd.budget().judged_copies
    fixed = views.sample(1, copies, torch.Generator().manual_seed(FIXED_SEED))
    score = fd.AugCLIP(models.clip, PROMPT, copies, fixed=fixed)
    with torch.no_grad():
        torch.testing.assert_close(score(last.best_image, []), last.best_score, atol=1e-4, rtol=0)
        torch.testing.assert_close(score(last.image, []), last.judged, atol=1e-4, rtol=0)
    assert torch.equal(last.best_image, paste(last.best_foreground, last.best_background, last.placements))
    assert last.best_score[last.winner] == last.best_score.max()


def test_the_result_is_the_winner_blended(runs: object) -> None:
    last = runs()[-1]
    i = last.winner
    parts = last.best_foreground[i : i + 1], last.best_background[i : i + 1]
    assert torch.equal(last.blended(), poisson(*parts, last.placements[i]).clamp(-1, 1))
    assert last.blended(1).shape == (1, 3, 64, 64)


def test_rivals_start_alike_and_part(runs: object) -> None:
    firsts = {name: runs(rule=rule(name))[0] for name in RULES}
    lasts = {name: runs(rule=rule(name))[-1] for name in RULES}
    for name in [*RULES][1:]:
        assert torch.equal(firsts[name].image, firsts["bilevel"].image)
        assert not torch.equal(lasts[name].image, lasts["bilevel"].image)
    assert lasts["inverse"].loss.mean() < lasts["augclip"].loss.mean()
    assert (lasts["augclip"].lam == 1).all() and (lasts["linear"].lam == 0.5).all()
    same = runs(rule=rule("linear", lam=1.0))[-1]
    assert torch.equal(same.image, lasts["augclip"].image)


def test_bilevel_lowers_the_perceptual_loss_below_augclip_alone(runs: object) -> None:
    length = {"steps": 12, "copies": 4, "lr": 2e-2}
    both, alone = (runs(rule=rule(name), **length)[-1] for name in ("bilevel", "augclip"))
    assert both.loss.mean() < 0.9 * alone.loss.mean()


def test_only_with_keep_some_placements_stop_early(runs: object) -> None:
    assert all(step.going.all() for step in runs())
    steps = runs(placements=Placements.of(THREE, 1))
    (winner,) = steps[1].going.nonzero().flatten().tolist()
    assert winner == int(steps[0].judged.argmax()) or winner == int(steps[1].judged.argmax())
    for i in range(3):
        still = torch.equal(steps[1].image[i], steps[-1].image[i])
        assert still == (i != winner)
    torch.testing.assert_close(steps[-1].image[winner], runs()[-1].image[winner], atol=2e-2, rtol=0)


def test_the_starts_can_be_ranked_by_words_of_their_own(models: Models) -> None:
    texts = {"foreground": "a photo of an elephant", "background": "a photo of a house"}
    (step,) = compose(PROMPT, models, placements=THREE[0], M=40, k=1, steps=0, copies=1, **texts)
    score = fd.CLIPScore(models.clip, list(texts.values()))
    with torch.no_grad():
        own = score(torch.cat([step.foreground, step.background]))
        swapped = score(torch.cat([step.background, step.foreground]))
    assert (own > swapped).all()


def test_nan_stops_the_run_and_names_the_step(models: Models) -> None:
    class Broken:
        def __call__(self, a: Tensor, b: Tensor) -> Tensor:
            return models.perceptual(a, b) * float("nan")

    with pytest.raises(FloatingPointError, match="not a finite number at step 0 of 4"):
        list(compose(PROMPT, replace(models, perceptual=Broken()), placements=THREE[0], **SMALL))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prompt": " "}, "The prompt is empty"),
        ({"background": " "}, "The prompt is empty"),
        ({"seed": -1}, "A seed is a whole number"),
        ({"placements": ()}, "at least one placement"),
        (
            {"placements": Placement(0.2)},
            "0.2 center center is less than 17 pixels wide or high",
        ),
        ({"steps": -1}, "steps must be 0 or more, not -1"),
    ],
)
def test_bad_input_is_refused_at_the_call(
    models: Models, arguments: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        compose(**{"prompt": PROMPT, "models": models, **arguments})
