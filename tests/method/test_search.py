"""BasinCMA: known optima, exact counts, the same bits from the same seed."""

from __future__ import annotations

import io
from dataclasses import replace

import cma
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method.fusedream import climb
from fusedream_nb.method.latents import Plain
from fusedream_nb.method.scores import Score
from fusedream_nb.method.search import BasinCMARun, Law, Schedule
from fusedream_nb.models import Models
from fusedream_nb.models.biggan import BigGANDeep
from fusedream_nb.models.generators import Latent

PLAIN_CMA = Schedule(mega_steps=60, inner_steps=0, final_steps=0, population=10)


class Identity:
    """A generator whose picture is its latent, so that optima are known; it counts what it draws."""

    size = 1
    class_names = ()

    def __init__(self) -> None:
        self.drawn = 0

    def sample(self, n: int, rng: torch.Generator) -> Latent:
        return Latent(torch.randn(n, 3, generator=rng))

    def decode(self, latent: Latent) -> Tensor:
        self.drawn += len(latent)
        return latent.z[:, :, None, None]

    def project(self, latent: Latent) -> Latent:
        return Latent(latent.z.clamp(-2, 2))


class Near(Score):
    """Minus the squared distance to a point: its maximum is known."""

    def __init__(self, point: list[float]) -> None:
        self.point = torch.tensor(point)

    def __call__(self, image: Tensor, rng: object) -> Tensor:
        return -(image.flatten(1) - self.point).square().sum(1)


class Ripples(Score):
    """A broad hill with its top at a point, covered with ripples in which descent gets stuck."""

    def __init__(self, point: list[float]) -> None:
        self.point = torch.tensor(point)

    def __call__(self, image: Tensor, rng: object) -> Tensor:
        x = image.flatten(1) - self.point
        return (-x.square() + 0.6 * (torch.cos(12 * x) - 1)).sum(1)


def test_cma_alone_finds_the_maximum_of_a_quadratic(rng: torch.Generator) -> None:
    *_, last = BasinCMARun(Identity(), Near([0.5, -1.0, 1.5]), rng, PLAIN_CMA)
    torch.testing.assert_close(last.best_image.flatten(), torch.tensor([0.5, -1.0, 1.5]), atol=0.02, rtol=0)
    assert last.knobs["sigma"] < 0.2  # it has closed in


def test_the_maximum_may_lie_at_the_clamp(rng: torch.Generator) -> None:
    schedule = Schedule(mega_steps=3, inner_steps=20, final_steps=60, population=6)
    *_, last = BasinCMARun(Identity(), Near([5.0, 0.0, -5.0]), rng, schedule, lr=0.1)
    torch.testing.assert_close(last.best_image.flatten(), torch.tensor([2.0, 0.0, -2.0]), atol=0.05, rtol=0)


def test_it_leaves_the_basins_that_hold_adam() -> None:
    score, schedule = Ripples([0.8, -0.9, 1.1]), Schedule(8, 10, 40, population=8)
    stuck, left = [], []
    for seed in range(4):
        rng = torch.Generator().manual_seed(seed)
        generator = Identity()
        *_, adam = climb(generator, score, Plain(generator.sample(1, rng)), rng, steps=100, lr=0.05)
        *_, basin = BasinCMARun(Identity(), score, rng, schedule)
        stuck.append(float(adam.best_score))
        left.append(float(basin.best_score))
    assert max(left) > -1e-2 and sum(left) / 4 > sum(stuck) / 4 + 0.3


@pytest.mark.parametrize("schedule", [Schedule(2, 3, 4, 5), Schedule(0, 3, 2, 4), Schedule(1, 0, 0, 4)])
def test_its_evaluations_are_counted_exactly(rng: torch.Generator, schedule: Schedule) -> None:
    generator = Identity()
    for count, step in enumerate(BasinCMARun(generator, Near([0.0, 0.0, 0.0]), rng, schedule)):
        assert step.knobs["evaluations"] == generator.drawn
        assert (step.index, step.total) == (count, schedule.rounds - 1)
        assert step.image.shape == (1, 3, 1, 1) and len(step.latent) == len(step.score) == 1
        torch.testing.assert_close(generator.project(step.latent).z.flatten(), step.image.flatten())
    assert count == step.total
    assert generator.drawn == schedule.evaluations


def test_the_default_is_the_papers() -> None:
    assert Schedule().evaluations == 18 * (30 * 31 + 301)
    assert Schedule.within(Schedule().evaluations) == Schedule()


@given(st.integers(4, 30), st.integers(2, 3000), st.integers(0, 29))
@settings(max_examples=200, deadline=None)
def test_a_schedule_within_a_number_fills_it(population: int, rounds: int, rest: int) -> None:
    evaluations = rounds * population + min(rest, population - 1)
    schedule = Schedule.within(evaluations, population)
    assert evaluations - population < schedule.evaluations <= evaluations
    assert schedule.mega_steps >= 1


def test_cma_is_told_where_climbs_began_with_the_scores_where_they_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, told = [], []
    ask, tell = cma.CMAEvolutionStrategy.ask, cma.CMAEvolutionStrategy.tell
    monkeypatch.setattr(cma.CMAEvolutionStrategy, "ask", lambda self: asked.append(ask(self)) or asked[-1])
    monkeypatch.setattr(
        cma.CMAEvolutionStrategy, "tell", lambda self, x, f: told.append((x, f)) or tell(self, x, f)
    )
    schedule = Schedule(mega_steps=1, inner_steps=250, final_steps=0, population=6)
    list(
        BasinCMARun(Identity(), Near([0.1, 0.2, 0.3]), torch.Generator().manual_seed(0), schedule, sigma=2.0)
    )
    ((points, losses),) = told
    law = Law.of(Identity(), torch.Generator().manual_seed(0))
    wanted, began = (law.latent(torch.tensor(np.stack(x)).float()).z for x in (asked[0], points))
    assert wanted.abs().max() > 2
    torch.testing.assert_close(began, wanted.clamp(-2, 2), atol=1e-4, rtol=0)
    assert max(losses) < 0.05 < (began - torch.tensor([0.1, 0.2, 0.3])).square().sum(1).min()


def test_a_clamp_does_not_lead_it_astray() -> None:
    """Beyond the clamp all pictures are the same; the maximum lies next to it."""
    schedule = Schedule(mega_steps=40, inner_steps=0, final_steps=0, population=10)
    for seed in range(4):
        rng = torch.Generator().manual_seed(seed)
        *_, last = BasinCMARun(Identity(), Near([1.9, -1.9, 1.9]), rng, schedule)
        assert last.best_score > -1e-3


def test_one_seed_gives_the_same_bits_and_leaves_numpys_randomness(models: Models) -> None:
    score = fd.AugCLIP(models.clip, "a photo of a cat", copies=2)
    schedule = Schedule(mega_steps=1, inner_steps=1, final_steps=0, population=4)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002  the state that must not move
    a, b, c = (
        [*BasinCMARun(models.generator, score, torch.Generator().manual_seed(seed), schedule)]
        for seed in (3, 3, 4)
    )
    assert before == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert all(torch.equal(x.image, y.image) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[-1].image, c[-1].image)
    best = torch.cat([step.best_score for step in a])
    assert (best.diff() >= 0).all()


@pytest.mark.parametrize("at", [0, 2, 5, 7])
def test_resumed_at_any_step_it_is_the_unbroken_search(models: Models, at: int) -> None:
    """From a fresh process, and from a run that has gone on; the score takes randomness too."""

    def search() -> BasinCMARun:
        budget = replace(fd.budget("smoke"), copies=1, judged_copies=1)
        return fd.basin_cma("a cat", models, seed=3, budget=budget, schedule=Schedule(2, 1, 3, 4))

    run, steps = search(), []
    for step in run:
        steps.append(step)
        if step.index == at:
            file = io.BytesIO()
            torch.save(run.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    for again in (search(), run):
        again.load_state_dict(state)
        for mine, its in zip(again, steps[at:], strict=True):
            assert torch.equal(mine.image, its.image) and torch.equal(mine.best_image, its.best_image)
            assert (mine.index, mine.knobs) == (its.index, its.knobs)


def test_it_writes_no_files(rng: torch.Generator, tmp_path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    list(BasinCMARun(Identity(), Near([0.0, 0.0, 0.0]), rng, Schedule(3, 1, 1, 4)))
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_the_law_has_the_generators_mean_and_covariance(models: Models, rng: torch.Generator) -> None:
    generator = models.generator
    assert isinstance(generator, BigGANDeep)
    law = Law.of(generator, rng)
    classes = len(generator.embeddings)
    assert law.dim == generator.z_dim + min(classes - 1, generator.embeddings.shape[1])
    mine = law.latent(torch.randn(20_000, law.dim, generator=rng))
    theirs = generator.sample(20_000, rng)
    for one, other in zip(mine.tensors(), theirs.tensors(), strict=True):
        torch.testing.assert_close(one.mean(0), other.mean(0), atol=0.06, rtol=0)
        torch.testing.assert_close(one.T.cov(), other.T.cov(), atol=0.1, rtol=0)


def test_coordinates_give_the_latents_back(models: Models, rng: torch.Generator) -> None:
    law = Law.of(models.generator, rng)
    latent = models.generator.sample(5, rng)
    again = law.latent(law.coordinates(latent))
    torch.testing.assert_close(again.z, latent.z, atol=1e-4, rtol=0)
    torch.testing.assert_close(again.y, latent.y, atol=1e-4, rtol=0)


def test_bad_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="population of at least 4"):
        Schedule(population=3)
    with pytest.raises(ValueError, match="steps of 0 or more"):
        Schedule(mega_steps=-1)
    with pytest.raises(ValueError, match="30 evaluations are too few for two populations of 18"):
        Schedule.within(30)
