"""Budgets: five of them, growing; what figures repeat; names that have changed."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.method import budgets
from fusedream_nb.method.budgets import BUDGETS, FIGURES, Budget
from fusedream_nb.method.config import configure

NAMES = ["smoke", "quick", "gallery", "colab", "paper"]


def work(sizes: Budget) -> int:
    """Return a run's cost in CLIP forward passes, a backward pass for two."""
    return sizes.M * sizes.start_copies + sizes.steps * (3 * sizes.copies + sizes.judged_copies // 5)


def test_there_are_five_budgets_and_quick_is_the_default(monkeypatch):
    assert list(BUDGETS) == NAMES
    monkeypatch.delenv("FUSEDREAM_BUDGET", raising=False)
    assert fd.budget().name == "quick"
    monkeypatch.setenv("FUSEDREAM_BUDGET", "gallery")
    assert fd.budget().name == "gallery" and fd.budget("smoke").name == "smoke"


@pytest.mark.parametrize(
    ("world", "device", "name"),
    [(None, "cuda", "colab"), (None, "cpu", "quick"), ("stickers", "cuda", "quick"), (None, "mps", "quick")],
)
def test_real_models_on_cuda_take_colab(monkeypatch, world, device, name):
    monkeypatch.delenv("FUSEDREAM_BUDGET", raising=False)
    models = SimpleNamespace(world=world, device=torch.device(device))
    assert fd.budget(None, models).name == name
    assert configure("fusedream", "a dog", 0, None, {}, models).budget.name == name  # as every run's
    model = "stickers/vqgan" if world else "biggan-256"
    monkeypatch.setattr(budgets, "resolve_device", torch.device)
    assert budgets.default(model, device) == name  # as the shell's


@pytest.mark.parametrize("figure", [None, *FIGURES])
def test_each_budget_is_no_smaller_than_the_one_below(figure):
    sizes = [fd.budget(name, figure=figure) for name in ("smoke", "quick", "gallery", "paper")]
    assert [work(s) for s in sizes] == sorted(work(s) for s in sizes)
    assert all(1 <= s.k <= s.M and min(s.steps, s.copies, s.judged_copies) >= 1 for s in sizes)


@pytest.mark.parametrize("figure", FIGURES)
def test_every_row_has_a_column_for_each_budget_and_repeats_that_grow(figure):
    for row in FIGURES[figure].values():
        assert len(row) == len(NAMES)
        if all(isinstance(value, int) for value in row):
            assert row[0] <= row[1] <= row[2]


def test_a_figures_repeats_are_attributes_beside_its_runs_sizes():
    sizes = fd.budget("quick", figure="fd-05")
    assert (sizes.seeds, sizes.k) == (FIGURES["fd-05"]["seeds"][1], BUDGETS["quick"].k)
    assert list(asdict(sizes)) == list(asdict(BUDGETS["quick"]))  # what records keep
    for same in (pickle.loads(pickle.dumps(sizes)), copy.deepcopy(sizes)):
        assert same == sizes and same.seeds == sizes.seeds
    assert replace(sizes, steps=7).steps == 7
    with pytest.raises(AttributeError, match=r"no 'pears'; they have .*seeds"):
        _ = sizes.pears


def test_only_smoke_does_not_count():
    assert [name for name in NAMES if not fd.budget(name).counts] == ["smoke"]


def test_unknown_names_are_told():
    with pytest.raises(ValueError, match="No budget is called 'huge'; known are smoke, quick, gallery"):
        fd.budget("huge")
    with pytest.raises(ValueError, match="No sizes are kept for 'fd-99'; known are start, fd-02"):
        fd.budget("quick", figure="fd-99")


def test_the_books_table_is_the_budgets_own():
    table = (Path(__file__).parents[2] / "docs" / "using.md").read_text("utf-8")
    for name, sizes in BUDGETS.items():
        numbers = f"| {sizes.M:,} | {sizes.k} | {sizes.steps:,} | {sizes.copies} | {sizes.lr:g} |"
        assert any(row.startswith(f"| `{name}` |") and row.endswith(numbers) for row in table.splitlines())
