"""States on disk: killed at any moment, a run goes on to the picture that it would have made."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.cli import main
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.config import packed
from fusedream_nb.method.run import Run
from fusedream_nb.records import checkpoint, jobs, png
from fusedream_nb.records.checkpoint import checkpointed, restore, save_state
from fusedream_nb.records.record import read_record

TINY = Budget("tiny", M=4, k=2, steps=6, copies=2, lr=0.02, start_copies=1, judged_copies=2)
CHILD = """
import json, sys, time
from pathlib import Path
import fusedream_nb as fd
from fusedream_nb.records import jobs
job, out = jobs.Job(**json.loads(sys.argv[1])), Path(sys.argv[2])
jobs.draw(job, fd.load(device="cpu"), out, [], watch=lambda prompts: lambda step: time.sleep(0.05), every=0)
"""


def dog(models, **more):
    return fd.fusedream("a blue dog", models, seed=3, budget=TINY, **more)


def job(*prompts, steps=6):
    return jobs.job(prompts, [3], None, "cpu", replace(TINY, steps=steps))


def stop_at(index):
    """Return what watches a batch, and presses Ctrl-C when it sees a step."""

    def watch(step):
        if step.index == index:
            raise KeyboardInterrupt

    return lambda prompts: watch


def pixels(folder):
    return {path.name: png.decode(path)[0].tobytes() for path in sorted(folder.glob("*.png"))}


def test_a_run_goes_on_from_its_folder(models, tmp_path):
    whole = list(dog(models))
    for step in checkpointed(dog(models), tmp_path, every=0):
        if step.index == 3:
            break
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.FILE]
    rest = list(checkpointed(dog(models), tmp_path, every=1e9))
    assert [step.index for step in rest] == [3, 4, 5, 6]
    assert torch.equal(rest[-1].best_image, whole[-1].best_image)
    (last,) = checkpointed(dog(models), tmp_path)  # the end is kept, however seldom the rest
    assert torch.equal(last.image, whole[-1].image)


def test_the_state_is_that_of_a_seldom_moment_too(models, tmp_path):
    run = checkpointed(dog(models), tmp_path, every=1e9)
    for _ in range(4):
        next(run)
    assert next(checkpointed(dog(models), tmp_path)).index == 0


def test_what_is_no_state_of_this_run_is_named(models, tmp_path):
    run = dog(models)
    restore(run, tmp_path)  # where none is, the run begins
    assert next(run).index == 0
    path = save_state(run, tmp_path)
    others = {
        "prompts": fd.fusedream("a cat", models, seed=3, budget=TINY),
        "options": dog(models, weights="coordinate"),
        "budget": dog(models, k=3),
        "method": fd.transport("a cat", models),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"another run's \\({name} differs"):
            checkpointed(other, tmp_path)
    for damaged in (b"", b"no state", path.read_bytes()[:-100]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"state\.pt is damaged"):
            checkpointed(dog(models), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Nothing can be written"):
        save_state(run, tmp_path / "file" / "below")


def test_arguments_that_json_does_not_hold_are_told_apart(models, pictures):
    one, same, other = (fd.transport(["a cat", pictures[i]], models, steps=1) for i in (0, 0, 1))
    assert checkpoint.made_by(one) == checkpoint.made_by(same) != checkpoint.made_by(other)


def test_killed_at_any_moment_the_job_is_finished_to_the_bit(models, tmp_path):
    asked = job("a blue dog", steps=20)
    jobs.draw(asked, models, tmp_path / "whole", [], watch=lambda prompts: lambda step: None)
    out, moment = tmp_path / "killed", random.Random(time.time_ns())
    child = subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(asdict(asked)), str(out)])
    while not list(out.glob(".unfinished-*/batch-0/state.pt")):
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(moment.uniform(0, 0.8))  # its twenty steps take a second at least
    child.kill()
    child.wait()
    assert list(out.glob(".unfinished-*"))
    assert not list(out.glob("*.png"))
    assert main(["generate", "--resume", str(out)]) == 0
    assert pixels(out) == pixels(tmp_path / "whole")
    assert sorted(path.suffix for path in out.iterdir()) == [".json", ".png"]


def test_a_stopped_job_is_finished_batch_by_batch(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Run, "together", 1)
    asked, rows = job("a blue dog", "a red car"), []
    jobs.draw(asked, models, tmp_path / "whole", [], watch=lambda prompts: lambda step: None)
    stop = {"a blue dog": -1, "a red car": 4}
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        jobs.draw(asked, models, out, rows, every=0, watch=lambda prompts: stop_at(stop[prompts[0]])(prompts))
    assert [row["steps_done"] for row in rows] == [6, 4]
    assert jobs.unfinished(out)[0].done == 1
    assert main(["generate", "--resume", str(out)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1  # the first was done
    assert pixels(out) == pixels(tmp_path / "whole")
    assert main(["generate", "--resume", str(out)]) == 2
    assert "Nothing unfinished" in capsys.readouterr().err


def test_a_job_goes_on_with_other_words_and_more_steps(models, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        jobs.draw(job("a blue dog"), models, tmp_path, [], every=0, watch=stop_at(4))
    assert main(["generate", "--resume", str(tmp_path), "a red car", "--steps", "8", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    told = read_record(row["path"])
    assert (told.prompt, told.batch_prompts, told.steps_done) == ("a red car", ["a blue dog"], 8)
    assert [entry["step"] for entry in told.knobs] == [4, 4]
    assert fd.replay(row["path"])[1] == 0


def test_a_job_of_another_version_is_named(tmp_path, capsys):
    (tmp_path / ".unfinished-0").mkdir()
    (tmp_path / ".unfinished-0" / "job.json").write_text('{"pairs": []}')
    assert main(["generate", "--resume", str(tmp_path)]) == 2
    assert "of another version" in capsys.readouterr().err


def test_a_stopped_composition_goes_on_where_it_was(models, tmp_path):
    options = {"placements": packed(fd.Placements.of(fd.Placement(0.5, 0.0, 1.0)))}
    sizes = replace(TINY, steps=3)
    asked = jobs.job(["a dog on a house"], [3], None, "cpu", sizes, method="compose", options=options)
    jobs.draw(asked, models, tmp_path / "whole", [], watch=lambda prompts: lambda step: None)
    with pytest.raises(KeyboardInterrupt):
        jobs.draw(asked, models, tmp_path / "out", [], every=0, watch=stop_at(1))
    assert main(["generate", "--resume", str(tmp_path / "out")]) == 0
    assert pixels(tmp_path / "out") == pixels(tmp_path / "whole")


@pytest.mark.parametrize(
    "arguments",
    [
        ["a", "b"],
        ["--seed", "4"],
        ["--seeds", "2"],
        ["--model", "stickers"],
        ["--budget", "gallery"],
        ["--film"],
        ["--out", "elsewhere"],
        ["--canvas", "64x64"],
        ["--placements", "all"],
        ["--mean"],
    ],
)
def test_resume_takes_a_prompt_and_steps_only(models, tmp_path, capsys, arguments):
    with pytest.raises(KeyboardInterrupt):
        jobs.draw(job("a blue dog"), models, tmp_path, [], every=0, watch=stop_at(0))
    before = sorted(tmp_path.rglob("*"))
    assert main(["generate", "--resume", str(tmp_path), *arguments]) == 2
    assert "goes on with" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_stopped_before_its_first_picture_a_job_leaves_nothing(models, tmp_path):
    class Interrupted:
        name = models.name

        def __getattr__(self, name):
            raise KeyboardInterrupt

    def interrupt(prompts):
        raise KeyboardInterrupt

    for world, watch in ((Interrupted(), stop_at(0)), (models, interrupt)):
        with pytest.raises(KeyboardInterrupt):
            jobs.draw(job("a blue dog"), world, tmp_path / "out", [], watch=watch)
        assert not list(tmp_path.iterdir())
