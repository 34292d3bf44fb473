"""Films: what cannot be made is said in a sentence, and the rest is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.method.budgets import Budget
from fusedream_nb.records import film as films
from fusedream_nb.records import jobs
from fusedream_nb.records.film import Film

TINY = Budget("tiny", M=4, k=2, steps=4, copies=2, lr=0.02, start_copies=1, judged_copies=2)


def job(**more):
    return jobs.job(["a blue dog"], [3], None, "cpu", TINY, film=True, **more)


def nothing(prompts):
    return lambda step: None


@pytest.mark.parametrize("broken", [".gif", ".mp4"])
def test_an_encoder_that_fails_loses_its_file_alone(models, tmp_path, monkeypatch, broken) -> None:
    def fail(frames):
        raise RuntimeError("no such encoder\nand a page of its own output")

    whole = {".gif": films._gif, ".mp4": lambda frames: b"fusedream film"}
    monkeypatch.setattr(films, "_encoders", lambda: {**whole, broken: fail})
    rows: list = []
    sentence = rf"^There is no {broken[1:].upper()} of the film \(no such encoder\)\.$"
    with pytest.warns(UserWarning, match=sentence):
        jobs.draw(job(), models, tmp_path, rows, watch=nothing)
    (row,) = rows
    assert Path(row["path"]).exists()
    assert [Path(path).suffix for path in row["film"]] == [".mp4" if broken == ".gif" else ".gif"]
    assert not list(tmp_path.glob(".unfinished-*"))


def test_frames_from_before_are_found_again_or_missed_in_a_sentence(models, tmp_path) -> None:
    run = fd.fusedream("a blue dog", models, budget=TINY)
    steps = list(run)
    for step in steps[:3]:
        Film(tmp_path).add(step)
    film = Film(tmp_path)
    for step in steps[2:]:
        film.add(step)
    whole = film.encode(0)[".gif"]
    other = Film(tmp_path / "other")
    for step in steps[2:]:
        other.add(step)
    with pytest.warns(UserWarning, match="lacks the frames from before"):
        assert len(other.encode(0)[".gif"]) < len(whole)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_ends_before_the_first_step_keeps_a_folder_that_was_there(models, tmp_path, error) -> None:
    def end(prompts):
        raise error

    theirs, new = tmp_path / "theirs", tmp_path / "new"
    theirs.mkdir()
    for out in (theirs, new):
        with pytest.raises(error):
            jobs.draw(job(), models, out, [], watch=end)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    assert not list(theirs.iterdir())


def test_frames_have_even_sides_and_the_last_one_stays(models, tmp_path) -> None:
    from PIL import Image

    run = fd.fusedream("a blue dog", models, budget=TINY)
    film = Film(tmp_path)
    for step in run:
        film.add(step)
    path = tmp_path / "film.gif"
    path.write_bytes(film.encode(0)[".gif"])
    with Image.open(path) as shown:
        assert shown.size == (256, 256)
        assert shown.n_frames <= len(list(tmp_path.glob("frame-*"))) + films.STAYS
    assert torch.equal(run.step.frames(best=True)[0][0], run.step.best_image[0])
