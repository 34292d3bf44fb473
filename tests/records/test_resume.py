"""A notebook whose kernel dies goes on in the next one from what its loops have left in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.run import Run
from fusedream_nb.records import checkpoint

TINY = Budget("tiny", M=4, k=2, steps=6, copies=2, lr=0.02, start_copies=1, judged_copies=2)
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"


class Died(BaseException):
    """What ends a kernel in the middle of a step."""


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(Run, "keeper", None)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)


def kernel(folder, monkeypatch, dies=-1):
    """Run a notebook as a fresh kernel does; return how many pictures were scored, and its first steps."""
    names, scored, evaluate = {}, [], Run.evaluate

    def counted(run, **more):
        if len(scored) == dies:
            raise Died
        scored.append(run.index)
        return evaluate(run, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "evaluate", counted)
        for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
            if "parameters" in cell["metadata"].get("tags", []):
                names.update(CHECKPOINTS=str(folder), DEVICE="cpu", BUDGET="smoke")
    return len(scored), names["steps"]


def test_a_notebook_goes_on_where_its_kernel_died(tmp_path, monkeypatch):
    total, whole = kernel("", monkeypatch)
    with pytest.raises(Died):
        kernel(tmp_path, monkeypatch, dies=3)
    for scored in (total - 2, 2):  # the saved step is drawn again; then of both runs the last alone
        found, steps = kernel(tmp_path, monkeypatch)
        assert found == scored and [step.index for step in steps] == [step.index for step in whole]
        assert all(torch.equal(a.score, b.score) for a, b in zip(steps, whole, strict=True))
        assert torch.equal(steps[-1].image, whole[-1].image)


def runs(models):
    score = fd.AugCLIP(models.clip, "a red car", 2)
    latent = models.generator.sample(1, torch.Generator().manual_seed(0))
    yield lambda: fd.fusedream("a blue dog", models, seed=[3, 4], budget=TINY)
    yield lambda: fd.compose("a dog and a house", models, placements=fd.Placement.at(0.5), budget=TINY)
    yield lambda: fd.climb(
        models.generator, score, fd.Plain(latent.map(torch.clone)), torch.Generator().manual_seed(1), steps=6
    )


@pytest.mark.parametrize("which", range(3))
def test_a_loop_gives_the_steps_that_were_made_before(models, tmp_path, which):
    make = list(runs(models))[which]
    whole = list(make())
    fd.checkpoints(tmp_path)
    for step in make():
        if step.index == 4:
            break
    fd.checkpoints(tmp_path)  # as the next process does
    again = list(make())
    assert [step.index for step in again] == list(range(7))
    for old, new in zip(whole, again, strict=True):
        assert torch.equal(old.score, new.score) and torch.equal(old.best_score, new.best_score)
        torch.testing.assert_close(old.image, new.image, atol=1e-3, rtol=0)
    assert torch.equal(again[-1].best_image, whole[-1].best_image)


def test_another_run_keeps_to_itself(models, tmp_path):
    fd.checkpoints(tmp_path)
    a = list(fd.fusedream("a blue dog", models, budget=TINY))
    b = list(fd.fusedream("a red dog", models, budget=TINY))
    c = list(fd.fusedream("a blue dog", models, budget=TINY))
    assert len(list(tmp_path.iterdir())) == 3
    assert not torch.equal(a[-1].image, b[-1].image) and torch.equal(a[-1].image, c[-1].image)


def test_large_things_are_kept_twenty_times_a_run(models, tmp_path):
    fd.checkpoints(tmp_path)
    for step in fd.fusedream("a blue dog", models, budget=TINY, steps=60):
        last = step
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.glob("0*.pt"))) == 21
    fd.checkpoints(tmp_path)
    again = list(fd.fusedream("a blue dog", models, budget=TINY, steps=60))
    assert torch.equal(again[4].image, again[3].image) and torch.equal(again[-1].image, last.image)


def test_a_damaged_file_is_named(models, tmp_path):
    fd.checkpoints(tmp_path)
    list(fd.fusedream("a blue dog", models, budget=TINY))
    (file,) = tmp_path.glob("*/steps.pt")
    file.write_bytes(file.read_bytes()[:100])
    fd.checkpoints(tmp_path)
    with pytest.raises(ValueError, match=r"steps\.pt is damaged"):
        list(fd.fusedream("a blue dog", models, budget=TINY))
