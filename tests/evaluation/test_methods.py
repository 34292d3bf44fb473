"""The methods of Table 1: equal work, and pictures that do not depend on their neighbours."""

from __future__ import annotations

import pickle
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fusedream_nb as fd
from fusedream_nb.evaluation.captions import sticker_scenes
from fusedream_nb.evaluation.methods import (
    METHODS,
    caption_seed,
    chosen,
    composition_steps,
    draw,
    seeds_of,
    work,
)
from fusedream_nb.method import bank
from fusedream_nb.method.budgets import BUDGETS, Budget
from fusedream_nb.models.stickers.world import render

TINY = replace(BUDGETS["quick"], M=5, k=5, steps=1, copies=1, start_copies=1, judged_copies=1)
TEXTS = ["a blue dog", "a red car at night", "a fox next to a tree", "a sketch of a cat", "an owl on snow"]
BATCHED = ("naive-adam", "big-sleep", "fusedream-5", "composition")


@pytest.mark.parametrize("method", [*BATCHED, "best-of-M"])
def test_a_picture_is_the_same_to_the_bit_whatever_stands_beside_it(models, method):
    whole = draw(method, TEXTS, models, TINY)
    assert whole.shape == (5, 3, 64, 64) and whole.abs().max() <= 1
    assert torch.equal(draw(method, TEXTS[4:] + TEXTS[1:2], models, TINY), whole[[4, 1]])


def test_seeds_and_captions_give_pictures_of_their_own(models):
    first = draw("random", TEXTS[:2], models, TINY)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(draw("random", TEXTS[:1], models, TINY, 1), first[:1])
    seeds = {caption_seed(text, seed) for text in TEXTS for seed in range(50)}
    assert len(seeds) == 250 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("real", "random", "fusedream-5")])
def test_all_methods_draw_as_much(models, monkeypatch, method):
    """A picture is one, and three where a gradient comes back; a run's last look and its choice are extra."""
    sizes = replace(TINY, M=12, k=10, steps=4)
    if method == "composition":
        sizes = replace(sizes, M=20, steps=40)
    drawn, decode = [0], models.generator.decode

    def counted(latent):
        image = decode(latent)
        drawn[0] += len(latent)
        if image.requires_grad:
            image.register_hook(lambda g: drawn.__setitem__(0, drawn[0] + 2 * len(g)))
        return image

    monkeypatch.setattr(models.generator, "decode", counted)
    one = method == "best-of-M"
    draw(method, TEXTS[:1] if one else TEXTS[:4], models, sizes)
    assert work(sizes) <= drawn[0] / (1 if one else 4) <= work(sizes) * 1.25


def test_from_a_thousand_samples_on_all_captions_start_from_one_bank(models, monkeypatch, tmp_path):
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path))
    monkeypatch.setattr(bank, "WORTH", 12)
    sizes, climbed = replace(TINY, M=12, steps=0), []
    for method in ("best-of-M", "fusedream-5", "naive-adam"):
        climbed.append(draw(method, TEXTS[:2], models, sizes))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert seeds_of(TEXTS, 3, bank.WORTH) == [3] * len(TEXTS)
    assert (
        seeds_of(TEXTS, 3, bank.WORTH - 1) == seeds_of(TEXTS, 3) == [caption_seed(text, 3) for text in TEXTS]
    )
    assert not any(torch.equal(*images) for images in climbed)  # each caption has a picture of its own
    again = draw("best-of-M", [*TEXTS[3:], TEXTS[0]], models, sizes)
    assert torch.equal(again[-1], climbed[0][0])


def test_random_is_one_sample_and_the_best_of_many_is_no_worse(models):
    from fusedream_nb.method.bank import start_views
    from fusedream_nb.method.scores import AugCLIP

    pictures = {method: draw(method, TEXTS[:1], models, TINY) for method in ("random", "best-of-M")}
    rng = torch.Generator().manual_seed(caption_seed(TEXTS[0], 0))
    sample = models.generator.decode(models.generator.sample(1, rng)).detach()
    assert (pictures["random"] - sample).abs().max() < 1e-5
    score = AugCLIP(models.clip, TEXTS[0], 1, fixed=start_views(1))
    assert score(pictures["best-of-M"], rng) > score(pictures["random"], rng)


def test_real_pictures_are_those_that_the_test_set_describes(models):
    texts, scenes = sticker_scenes(9)
    chosen = [7, 2]
    found = draw("real", [texts[i] for i in chosen], models, TINY)
    assert torch.equal(found, render(scenes[torch.tensor(chosen)], 64))
    with pytest.raises(ValueError, match="leave out the method real"):
        draw("real", ["no such caption"], models, TINY)


def test_methods_are_chosen_by_name_and_real_pictures_need_the_test_set(models):
    with pytest.raises(ValueError, match="No method is called 'x'; known are real, random"):
        draw("x", TEXTS, models, TINY)
    known, _ = sticker_scenes(3)
    assert chosen(None, known, "stickers") == tuple(METHODS)
    assert set(METHODS) - set(chosen(None, TEXTS, "stickers")) == {"real"}
    assert set(METHODS) - set(chosen(None, known, "biggan-256")) == {"real"}
    assert chosen(["random", "real", "random"], known, "stickers") == ("random", "real")


@pytest.mark.parametrize("name", BUDGETS)
def test_every_budget_has_enough_samples_for_all_methods(name):
    sizes = fd.budget(name, figure="fd-table-1")
    assert sizes.M >= 10  # of which k = 10 are kept
    assert work(sizes) <= work(BUDGETS[name])
    assert Budget(**asdict(sizes)) == Budget(**asdict(pickle.loads(pickle.dumps(sizes))))  # as Ray sends it


@given(steps=st.integers(17, 3000))
@settings(max_examples=50, deadline=None)
def test_a_composition_takes_all_the_steps_that_its_share_pays(steps):
    n = composition_steps(steps)
    looks = sum(4 if index <= n // 4 else 1 for index in range(n + 1))
    assert 3 * steps - 60 < 10 * looks <= 3 * steps
