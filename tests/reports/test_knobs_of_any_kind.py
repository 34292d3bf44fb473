"""Knobs and sizes of Python, NumPy and PyTorch; a text alone is one prompt, not its letters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.run import Run
from fusedream_nb.records.record import describe, read_record, save

TINY = Budget("tiny", M=4, k=2, steps=2, copies=1, lr=0.02, start_copies=1, judged_copies=1)
ONE = fd.Placements.of(fd.Placement(0.5))
RUNS = {
    "fusedream": lambda models, **own: fd.fusedream("a cat", models, budget=TINY, **own),
    "compose": lambda models, **own: fd.compose("a cat", models, placements=ONE, budget=TINY, **own),
    "transport": lambda models, **own: fd.transport(["a cat", "a house"], models, budget=TINY, **own),
}


def kept(run: Run, folder: Path) -> Path:
    for _ in run:
        pass
    ((image, told),) = describe(run)
    return save(image, told, folder)


@pytest.mark.parametrize("words", ["dog", np.str_("dog"), ("dog",), ["dog"], {"dog": 1}], ids=type)
@pytest.mark.parametrize("name", RUNS)
def test_a_text_that_is_set_is_one_prompt(models, tmp_path, name: str, words) -> None:
    run = RUNS[name](models)
    next(run)
    run.set(prompt=words)
    path = kept(run, tmp_path)
    assert (run.knobs["prompt"], read_record(path).prompt) == (["dog"], "dog")
    assert fd.replay(path)[1] == 0


@pytest.mark.parametrize("words", [3, None, b"dog", [None], ["dog", 2], Path("dog.png")], ids=str)
@pytest.mark.parametrize("name", RUNS)
def test_what_is_no_text_is_refused_at_once(models, name: str, words) -> None:
    run = RUNS[name](models)
    with pytest.raises(ValueError, match="prompt is set to texts"):
        run.set(prompt=words)
    assert run.wanted["prompt"] == run.knobs["prompt"]


def test_numbers_of_numpy_and_torch_are_kept_and_made_again(models, tmp_path) -> None:
    run = RUNS["fusedream"](models, steps=np.int64(3), lr=np.float32(0.01), copies=torch.tensor(2))
    next(run)
    run.set(lr=torch.tensor(0.03), copies=np.uint8(1), colour=np.float64(0.5))
    path = kept(run, tmp_path)
    told = read_record(path)
    assert (told.steps, told.copies, told.steps_done) == (3, 2, 3)
    assert {name: value for entry in told.knobs for name, value in entry.items()} == {
        "step": 0, "lr": pytest.approx(0.03), "copies": 1, "colour": 0.5
    }  # fmt: skip
    assert fd.replay(path)[1] == 0


@pytest.mark.parametrize("weights", [np.array([1, 3]), torch.tensor([1.0, 3.0]), (1, np.int32(3))], ids=type)
def test_weights_of_any_kind(models, tmp_path, weights) -> None:
    path = kept(RUNS["transport"](models, weights=weights, epsilon=np.float32(0.5)), tmp_path)
    assert read_record(path).options["weights"] == [1, 3]
    assert fd.replay(path)[1] == 0
