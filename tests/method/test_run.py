"""Runs saved, resumed and steered between any two steps: the same bits, and knobs that do what they say."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method import run_from, views
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.latents import noisy
from fusedream_nb.method.run import Refused, Run, Step
from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent

STEPS = 6  # one more than from one look at the best to the next
TINY = Budget("tiny", M=4, k=2, steps=STEPS, copies=2, lr=0.02, start_copies=1, judged_copies=2)
DOG, CAR = "a photo of a blue dog", "a photo of a red car"
TWO = (fd.Placement.at(0.5, "left", "top"), fd.Placement.at(0.65))


def dogs(models: Models, seed: Any = 1, **more: Any) -> Run:
    return fd.fusedream(DOG, models, seed=seed, **{"budget": TINY, **more})


def duets(models: Models, **more: Any) -> Run:
    return fd.compose(
        "a cat on a house", models, **{"placements": fd.Placements.of(TWO, 1), "budget": TINY, **more}
    )


def plans(models: Models, **more: Any) -> Run:
    return fd.transport([DOG, CAR], models, **{"cutouts": fd.Cutouts(4), "budget": TINY, **more})


def pair(models: Models) -> Run:
    return dogs(models, [1, 2])


RUNS: dict[str, tuple[Callable[..., Run], dict[int, dict[str, Any]]]] = {
    "fusedream": (
        dogs,
        {2: {"lr": 0.01, "cutout": 0.3}, 4: {"prompt": ["a cat"], "noise": 0.1, "copies": 3}},
    ),
    "compose": (duets, {2: {"rule": "inverse", "beta": 0.5}, 4: {"lr": 0.01, "colour": 0.0}}),
    "transport": (plans, {2: {"epsilon": 0.5, "patches": 3}, 4: {"prompt": ["a cat"], "noise": 0.1}}),
}


def through(run: Run, knobs: dict[int, dict[str, Any]], first: int = -1) -> list[Step]:
    """Take all steps, the knobs turned after those that they name, from the first on."""
    steps = []
    for step in run:
        steps.append(step)
        if step.index >= first:
            run.set(**knobs.get(step.index, {}))
    return steps


def same(one: Any, other: Any) -> bool:
    """Whether two values, tensors or things made of these are equal to the bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if hasattr(one, "__dataclass_fields__"):
        names = [f.name for f in fields(one) if f.name != "seconds"]
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    return one == other


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """Send a state through a file, as a process that is killed must."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", RUNS)
def test_resumed_at_any_step_it_is_the_unbroken_run(models: Models, name: str) -> None:
    method, knobs = RUNS[name]
    whole = method(models)
    states, steps = [], []
    for step in whole:
        steps.append(step)
        states.append(stored(whole.state_dict()))
        whole.set(**knobs.get(step.index, {}))
    assert len(steps) == STEPS + 1
    for at in (0, 3, STEPS):
        again = method(models)
        again.load_state_dict(states[at])
        for mine, its in zip(through(again, knobs, at), steps[at:], strict=True):
            assert same(mine, its), (at, its.index)
        assert again.log == whole.log
    assert whole.log == [{"step": at, n: v} for at, many in knobs.items() for n, v in sorted_as(whole, many)]


def sorted_as(run: Run, many: dict[str, Any]) -> list[tuple[str, Any]]:
    """Changes made at once are taken in the order in which the run lists its knobs."""
    return [(name, many[name]) for name in run.knobs if name in many]


@pytest.mark.parametrize("name", RUNS)
def test_a_state_is_not_touched_by_what_comes_after_and_serves_twice(models: Models, name: str) -> None:
    method, knobs = RUNS[name]
    run = method(models)
    next(run), next(run)
    state = run.state_dict()
    last = through(run, knobs)[-1]
    for _ in range(2):
        run.load_state_dict(state)
        assert same(through(run, knobs)[-1], last)


@pytest.mark.parametrize("name", RUNS)
def test_the_log_makes_the_same_pictures_again(models: Models, name: str) -> None:
    method, knobs = RUNS[name]
    run = method(models)
    last = through(run, knobs)[-1]
    changes: dict[int, dict[str, Any]] = {}
    for entry in run.log:
        changes.setdefault(entry["step"], {}).update({n: v for n, v in entry.items() if n != "step"})
    again = run_from(run.config, models)
    assert same(through(again, changes)[-1], last)
    assert not same(list(run_from(run.config, models))[-1], last)


def named(value: object) -> str:
    """Name a case the same in every process."""
    return getattr(value, "__name__", str(value))


SAME_AS = [
    (dogs, {"lr": 0.01}, {"lr": 0.01}),
    (dogs, {"copies": 5}, {"copies": 5}),
    (dogs, {"steps": 1}, {"steps": 1}),
    (dogs, {"colour": 0.0, "cutout": 0.0}, {"policy": ("translation", "resize")}),
    (dogs, {"resize": 0.5}, {"policy": {**dict.fromkeys(views.ALL, 1.0), "resize": 0.5}}),
    (plans, {"epsilon": 0.7}, {"epsilon": 0.7}),
    (plans, {"patches": 2}, {"cutouts": fd.Cutouts(2)}),
    (plans, {"weights": [1.0, 3.0]}, {"weights": [1.0, 3.0]}),
    (duets, {"lr": 0.02}, {"lr": 0.02}),
]


@pytest.mark.parametrize(("method", "knobs", "arguments"), SAME_AS, ids=named)
def test_a_knob_turned_at_the_start_is_the_argument(
    models: Models, method: Callable[..., Run], knobs: dict[str, Any], arguments: dict[str, Any]
) -> None:
    run, other = method(models, steps=2), method(models, **{"steps": 2, **arguments})
    if "policy" in arguments:  # the start is ranked by it too
        state = next(run) and run.state_dict()
        next(other)
        other.load_state_dict({**state, "knobs": other.knobs})
        run.load_state_dict(state)
    mine, its = through(run, {0: knobs})[-1], list(other)[-1]
    assert torch.equal(mine.image, its.image)
    assert mine.index == its.index


def test_the_rule_is_followed_a_step_after_it_was_chosen(models: Models) -> None:
    run, plain = (duets(models, placements=TWO[1], steps=4) for _ in range(2))
    plain = list(plain)
    steps = through(run, {2: {"rule": "linear", "lam": 0.9}})
    assert torch.equal(steps[3].image, plain[3].image)
    assert not torch.equal(steps[3].lam, plain[3].lam)
    assert not torch.equal(steps[4].image, plain[4].image)


def test_a_box_can_be_moved_where_there_is_but_one(models: Models) -> None:
    run = duets(models, placements=fd.Placement(0.5))
    steps = through(run, {2: {"x": 0.0, "alpha": 0.6}})
    assert [step.placements[0].x for step in steps] == [0.5] * 3 + [0.0] * 4
    assert torch.equal(steps[3].best_score, steps[3].judged)  # the best begins anew
    assert {"x", "y", "alpha"}.isdisjoint(duets(models).knobs)


@pytest.mark.parametrize(
    ("method", "knobs", "lists"),
    [
        (dogs, {"prompt": "a cat"}, {"prompt": ["a cat"]}),
        (duets, {"prompt": "a dog"}, {"prompt": ["a dog"]}),
        (plans, {"prompt": "a cat", "weights": 2.0}, {"prompt": ["a cat"], "weights": [2.0]}),
        (plans, {"prompt": ("a cat", "a dog")}, {"prompt": ["a cat", "a dog"]}),
    ],
    ids=named,
)
def test_a_plain_string_is_one_prompt(
    models: Models, method: Callable[..., Run], knobs: dict[str, Any], lists: dict[str, Any]
) -> None:
    runs = [method(models, steps=2) for _ in range(3)]
    for run, change in zip(runs, (knobs, lists, {}), strict=True):
        next(run)
        run.set(**change)
    runs[2].wanted.update(knobs)  # whoever writes there, as a slider may
    lasts = [list(run)[-1] for run in runs]
    assert same(lasts[0], lasts[1]) and same(lasts[2], lasts[1])
    assert {name: runs[0].knobs[name] for name in lists} == lists
    assert runs[0].log == runs[1].log == runs[2].log


STEPS_SET = [({0: {"steps": 4}}, 1), ({3: {"steps": 20}}, 2), ({2: {"steps": 3}}, 2)]


@pytest.mark.parametrize(("turns", "stops"), STEPS_SET)
def test_stopping_placements_survives_other_steps(models: Models, turns: dict, stops: int) -> None:
    """The others stop once, at the first quarter that is reached, however the steps are set."""
    run = duets(models, steps=8)
    going = [int(step.going.sum()) for step in through(run, turns)]
    assert going == [2] * stops + [1] * (len(going) - stops)


def test_composition_takes_prompts_seeds_starts_and_groups(models: Models) -> None:
    prompts, seeds = ["a cat on a house", "a dog on a car"], [1, 2]
    groups = [[TWO[0]], [TWO[1], TWO[0]]]
    brief = replace(TINY, steps=2)  # later on the kink of λ and Adam amplify what was rounded
    run = fd.compose(prompts, models, seed=seeds, placements=groups, budget=brief)
    both = list(run)[-1]
    assert both.group.tolist() == [0, 1, 1] and both.pictures().shape == (2, 3, 64, 64)
    for i in range(2):
        alone = list(fd.compose(prompts[i], models, seed=seeds[i], placements=groups[i], budget=brief))[-1]
        rows = both.group == i
        torch.testing.assert_close(both.image[rows], alone.image, atol=2e-3, rtol=0)
        torch.testing.assert_close(both.pictures()[i : i + 1], alone.pictures(), atol=3e-3, rtol=0)
        torch.testing.assert_close(both.fixed_score()[i : i + 1], alone.fixed_score(), atol=2e-3, rtol=0)
    halves = [models.generator.sample(2, torch.Generator().manual_seed(i)) for i in range(2)]
    first = next(fd.compose(prompts, models, seed=seeds, placements=TWO[0], budget=TINY, start=halves))
    torch.testing.assert_close(first.latent.z, halves[0].z)
    torch.testing.assert_close(first.latent_background.z, halves[1].z)
    with pytest.raises(ValueError, match="2 pictures require one group of placements or 2, not 3"):
        fd.compose(prompts, models, placements=[[TWO[0]]] * 3)


@pytest.mark.parametrize("method", [dogs, duets, plans])
def test_a_steps_score_is_of_its_own_picture(models: Models, method: Callable[..., Run]) -> None:
    """On views that do not change, the score of every step is that of its picture."""
    run = method(models, steps=3)
    score = run.patches if hasattr(run, "patches") else run.aug
    score.fixed = score.sample(1, torch.Generator()) if hasattr(run, "patches") else run.fixed.fixed
    for step in run:
        with torch.no_grad():
            again = score(step.image, torch.Generator())
        torch.testing.assert_close(step.score, again, atol=1e-4, rtol=0)


def test_runs_do_not_write_on_the_encoder_they_share(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(self: object, image: Tensor) -> Tensor:
        if len(image) > 2:
            raise torch.OutOfMemoryError("too many")
        return encode(image)

    encode, before = models.clip.encode_image, models.clip.at_once
    monkeypatch.setattr(type(models.clip), "encode_image", too_much)
    score = fd.AugCLIP(models.clip, DOG, 4)
    with pytest.warns(UserWarning, match="not enough memory"):
        score(torch.zeros(1, 3, 64, 64), torch.Generator())
    assert (models.clip.at_once, score.at_once) == (before, 2)


def test_other_words_begin_the_best_anew_and_change_what_is_climbed(models: Models) -> None:
    for words in (["a photo of a red car"], ["a cat", "a house"]):
        run = dogs(models, [1, 2])
        steps = through(run, {1: {"prompt": words}})
        texts = words * (2 // len(words))
        fixed = views.sample(1, 2, torch.Generator().manual_seed(20_211_203))
        judge = fd.AugCLIP(models.clip, texts, 2, fixed=fixed)
        assert torch.equal(steps[2].best_image, steps[2].image)
        with torch.no_grad():
            torch.testing.assert_close(steps[-1].best_score, judge(steps[-1].best_image, torch.Generator()))


def test_more_steps_go_on_after_the_last(models: Models) -> None:
    run = dogs(models, steps=2)
    taken = [next(run) for _ in range(3)]
    run.set(steps=4)
    taken += list(run)
    assert [step.index for step in taken] == [0, 1, 2, 3, 4]
    assert same(taken[-1].image, list(dogs(models, steps=4))[-1].image)
    run.set(lr=1.0)
    assert next(run, None) is None
    assert run.log == [{"step": 2, "steps": 4}]  # what comes after the end changes nothing


BAD = [
    (dogs, {"lr": 0.0}, "above 0"),
    (dogs, {"lr": float("nan")}, "above 0"),
    (dogs, {"copies": 0}, "at least 1"),
    (dogs, {"prompt": [""]}, "prompt is empty"),
    (dogs, {"prompt": ["a", "b", "c"]}, "one prompt or as many"),
    (dogs, {"cutout": 1.5}, r"\[0, 1\]"),
    (dogs, {"noise": -1.0}, "0 or more"),
    (plans, {"epsilon": 0.0}, "above 0"),
    (plans, {"weights": [1.0, -1.0]}, "above 0"),
    (plans, {"patches": 0}, "at least 1"),
    (plans, {"prompt": []}, "no prompt"),
    (duets, {"rule": "me"}, "known are"),
    (duets, {"beta": -1.0}, "0 or more"),
]


@pytest.mark.parametrize(("method", "knobs", "reason"), BAD, ids=named)
def test_a_value_that_is_refused_goes_back(
    models: Models, method: Callable[..., Run], knobs: dict[str, Any], reason: str
) -> None:
    run = method(models, steps=1)
    next(run)
    before = dict(run.knobs)
    run.set(**knobs)
    with pytest.raises(Refused, match=reason):
        next(run)
    assert run.wanted == run.knobs == before
    assert run.log == []


def test_after_a_refusal_the_run_goes_on_as_if_nothing_had_been(models: Models) -> None:
    run = dogs(models, steps=2)
    next(run)
    run.set(lr=-1.0, prompt=[" "], copies=3)
    for name in ("lr", "prompt"):
        with pytest.raises(Refused, match=name):
            next(run)
    assert torch.equal(list(run)[-1].image, list(dogs(models, steps=2, copies=3))[-1].image)
    assert run.log == [{"step": 0, "copies": 3}]


def test_an_unknown_knob_and_another_runs_state_are_named(models: Models) -> None:
    run = dogs(models)
    with pytest.raises(ValueError, match="no knob called 'speed'; it has lr, steps"):
        run.set(speed=1)
    with pytest.raises(ValueError, match="take a step first"):
        run.state_dict()
    next(run)
    for other in (plans(models), dogs(models, k=3)):
        with pytest.raises(ValueError, match="resume with the same"):
            other.load_state_dict(run.state_dict())


def test_a_closed_run_keeps_its_step_and_lets_go_of_the_rest(models: Models) -> None:
    run = dogs(models)
    *_, last = islice(run, 3)
    run.close()
    assert run.step is last
    assert next(run, None) is None


@given(st.integers(1, 4), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_a_strength_lies_between_off_and_on(copies: int, strength: float, seed: int) -> None:
    def numbers(policy: Any) -> views.Copies:
        return views.sample(1, copies, torch.Generator().manual_seed(seed), policy)

    part = numbers(dict.fromkeys(views.ALL, strength))
    on, off = numbers(views.ALL), numbers(())
    for name in ("brightness", "saturation", "contrast", "shift_x", "ratio", "cut"):
        whole, none, mine = (getattr(draw, name) for draw in (on, off, part))
        torch.testing.assert_close(mine, none + strength * (whole - none), atol=1e-5, rtol=1e-4)
    assert same(numbers(dict.fromkeys(views.ALL, 1.0)), on)
    assert same(numbers(dict.fromkeys(views.ALL, 0.0)), off)


def test_noise_has_its_deviation_and_each_run_its_own() -> None:
    latent = Latent(torch.zeros(2, 4000))
    rngs = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    z = noisy(latent, 0.3, rngs).z
    assert torch.equal(z[1], 0.3 * torch.randn(4000, generator=torch.Generator().manual_seed(2)))
    assert z.std().item() == pytest.approx(0.3, rel=0.05)
    assert not torch.equal(z[0], z[1])


def test_noise_takes_one_generator_for_several_pictures(models: Models, rng: torch.Generator) -> None:
    start, score = fd.Plain(models.generator.sample(2, rng)), fd.AugCLIP(models.clip, "a dog", 2)
    run = fd.climb(models.generator, score, start, rng, steps=2)
    next(run)
    run.set(noise=0.1)
    assert [step.score.shape for step in run] == [(2,), (2,)]
