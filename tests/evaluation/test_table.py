"""Runs that are stopped and go on, the table of a run, and the command."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
import typer
from typer.testing import CliRunner

import fusedream_nb as fd
from fusedream_nb.cli import evaluate_command
from fusedream_nb.evaluation.captions import captions, sticker_scenes
from fusedream_nb.evaluation.networks import network_of, reference_of
from fusedream_nb.evaluation.runs import Block, Folder, Plan, here, make, run, todo
from fusedream_nb.evaluation.table import summarise
from fusedream_nb.method.budgets import BUDGETS
from fusedream_nb.method.scores import CLIPScore
from fusedream_nb.records import png

TINY = replace(BUDGETS["quick"], M=2, k=1, steps=1, copies=1, start_copies=1, judged_copies=1)


def plan_of(n, *methods):
    return Plan(captions(limit=n), methods, TINY)


def records(folder, plan, without=("seconds",)):
    """Return all records of a plan by (caption, method), and check that none is there twice."""
    found = [row for method in plan.methods for row in folder.records(method, plan.seed).to_pylist()]
    keyed = {
        (row["caption"], row["method"]): {k: v for k, v in row.items() if k not in without} for row in found
    }
    assert len(keyed) == len(found)
    return keyed


def states(plan, folder, models):
    return run(plan, folder, partial(here, plan=plan, folder=folder, models=models))


def finish(plan, folder, models):
    return list(states(plan, folder, models))[-1]


def test_a_stopped_run_makes_what_is_missing_and_ends_as_one_that_was_not(tmp_path, models):
    whole, other = plan_of(9, "real", "random"), Folder(str(tmp_path / "other"))
    assert finish(whole, other, models) == (18, 18)
    folder = Folder(str(tmp_path / "run"))
    stopped = states(plan_of(6, "random"), folder, models)
    assert list(itertools.islice(stopped, 2)) == [(0, 6), (4, 6)]
    stopped.close()
    assert finish(plan_of(6, "random"), folder, models) == (
        2,
        2,
    )  # a block of two: filled up, not rounded otherwise
    assert finish(whole, folder, models) == (12, 12)
    assert finish(whole, folder, models) == (0, 0)
    assert records(folder, whole) == records(other, whole)
    names = {path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*.png")}
    assert names == {path.relative_to(tmp_path / "other") for path in (tmp_path / "other").rglob("*.png")}
    assert len(names) == 18


def test_blocks_keep_captions_together_over_the_methods(tmp_path):
    blocks = todo(plan_of(6, "a", "b"), Folder(str(tmp_path)))
    assert [(b.method, len(b.captions)) for b in blocks] == [("a", 4), ("b", 4), ("a", 2), ("b", 2)]


def test_a_record_is_measured_on_the_picture_that_is_kept(tmp_path, models):
    folder, plan = Folder(str(tmp_path)), plan_of(2, "random")
    assert make(Block("random", tuple(plan.captions)), plan, folder, models) == 2
    for key, row in records(folder, plan, ()).items():
        pixels, text = png.decode(tmp_path / row["picture"])
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        score = CLIPScore(models.judge, key[0])(image)
        found = torch.tensor(row["judge"]) @ models.judge.encode_text(key[0])[0]
        assert float(found) == pytest.approx(float(score), abs=1e-5)
        assert json.loads(text)["caption"] == key[0]


def test_a_folder_of_another_run_is_told(tmp_path):
    folder = Folder(str(tmp_path))
    plan = plan_of(1, "random")
    folder.begin(plan.settings())
    with pytest.raises(ValueError, match="sizes"):
        next(run(replace(plan, sizes=replace(TINY, steps=2)), folder, iter))


def test_the_table_puts_real_pictures_before_random_ones(tmp_path, models):
    plan, folder = plan_of(40, "real", "random"), Folder(str(tmp_path))
    finish(plan, folder, models)
    network = network_of(models)
    found = summarise(plan, folder, models, network, reference_of(models, network, 60))
    real, random = found.results
    assert (real.n, random.n, found.candidates, found.reference) == (40, 40, 40, 60)
    assert real.r_precision["judge"].low > random.r_precision["judge"].high
    assert real.clip_score["judge"].low > random.clip_score["judge"].high
    assert real.augclip.low > random.augclip.high
    assert real.set_metrics["KID"].value < random.set_metrics["KID"].value
    assert next(iter(real.set_metrics)) == "KID"
    texts = models.judge.encode_text(plan.captions)
    with torch.no_grad():
        vectors = models.judge.encode_image(rendered(40))
    assert real.clip_score["judge"].value == pytest.approx(float((vectors * texts).sum(-1).mean()), abs=2e-3)
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["library"].startswith("torch-fidelity")


def rendered(n):
    from fusedream_nb.models.stickers.world import render

    return render(sticker_scenes(n)[1])


def test_pictures_are_read_back_for_another_network(tmp_path, models):
    class Means:
        name = "the mean colour"

        def __call__(self, image):
            mean = image.mean((2, 3))
            return mean, mean

    plan, folder = plan_of(24, "real"), Folder(str(tmp_path))
    finish(plan, folder, models)
    reference = reference_of(models, Means(), 30)
    assert torch.equal(reference, reference_of(models, Means(), 30)) and reference.shape == (30, 3)
    found = summarise(plan, folder, models, Means(), reference).results[0].set_metrics
    from fusedream_nb.evaluation import metrics

    expected = metrics.fid(((rendered(24) + 1) * 127.5).round().div(127.5).sub(1).mean((2, 3)), reference)
    assert found["FID"].value == pytest.approx(expected, rel=1e-4)


app = typer.Typer()
app.command()(evaluate_command.evaluate)


def invoke(*arguments):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_the_command_draws_measures_and_goes_on(tmp_path):
    given = ("--out", str(tmp_path), "--limit", "24", "--device", "cpu", "--json", "--methods")
    first = invoke(*given, "real")
    assert first.exit_code == 0 and "KID leads" in first.stderr and "N = 24 pictures" in first.stderr
    again = json.loads(invoke(*given, "real, random").stdout)
    assert [row["method"] for row in again["results"]] == ["real", "random"]
    assert again["results"][0] == json.loads(first.stdout)["results"][0]
    assert again["settings"]["sizes"]["name"] == fd.budget().name
    shown = invoke(*given[:-2], "--methods", "real").stdout
    assert re.search(r"real +\d", shown)


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Nothing can be written"):
        invoke("--out", str(tmp_path / "file/run"), "--limit", "2", "--methods", "real")


def test_a_run_that_goes_on_computes_as_it_began(tmp_path):
    """With the threads that its records were made with: sums depend on them."""
    given = ("--out", str(tmp_path), "--limit", "3", "--device", "cpu", "--json", "--methods", "real")
    first = json.loads(invoke(*given).stdout)["settings"]
    assert first["threads"] == torch.get_num_threads()
    begun = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**begun, "threads": first["threads"] + 1}))
    assert json.loads(invoke(*given).stdout)["settings"]["threads"] == first["threads"] + 1


KILLED = """
from functools import partial
from fusedream_nb import load
from fusedream_nb.method.budgets import Budget
from fusedream_nb.evaluation.captions import captions
from fusedream_nb.evaluation.runs import Folder, Plan, here, run
import sys
plan, folder = Plan(captions(limit=24), ("real", "random"), Budget(**{sizes})), Folder(sys.argv[1])
for made, _ in run(plan, folder, partial(here, plan=plan, folder=folder, models=load(device="cpu"))):
    print(made, flush=True)
"""


@pytest.mark.heavy
def test_a_run_killed_at_any_moment_goes_on(tmp_path, models):
    plan, folder = plan_of(24, "real", "random"), Folder(str(tmp_path / "killed"))
    code = KILLED.format(sizes=TINY.__dict__)
    for pause in (0.05, 0.3):
        child = subprocess.Popen(
            [sys.executable, "-c", code, folder.address], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        while child.stdout.readline().strip() in ("", "0"):
            assert child.poll() is None
        time.sleep(pause)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        kept = records(folder, plan)
        assert 0 < len(kept) < 48
    finish(plan, folder, models)
    other = Folder(str(tmp_path / "whole"))
    finish(plan, other, models)
    assert records(folder, plan) == records(other, plan) and len(records(folder, plan)) == 48
    assert not list((tmp_path / "killed").rglob("*.part"))
