"""Records, jobs and states that were edited, cut or put there by hand: a sentence, never "(a fault)"."""

from __future__ import annotations

import json
import random
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.cli import main
from fusedream_nb.evaluation.runs import Folder
from fusedream_nb.method.budgets import Budget
from fusedream_nb.records import jobs, png
from fusedream_nb.records.checkpoint import FILE
from fusedream_nb.records.record import Record, describe, save

TINY = Budget("tiny", M=4, k=2, steps=1, copies=1, lr=0.02, start_copies=1, judged_copies=1)
JUNK: list[Any] = [None, -1, 2.5, "x", ["x"], {"is": "Cutouts"}, 10**400]
FAULT = re.compile(r"^fusedream-nb: [^\n]*\(a fault", re.MULTILINE)


@pytest.fixture(autouse=True)
def loaded(models, monkeypatch):
    """The models of all tests are these, whatever device is asked for."""
    monkeypatch.setattr("fusedream_nb.models.load", lambda *_, **__: models)
    monkeypatch.setattr(fd, "load", lambda *_, **__: models, raising=False)


@pytest.fixture(scope="module")
def made(models) -> tuple[torch.Tensor, Record]:
    run = fd.fusedream("a blue dog", models, seed=3, budget=TINY)
    list(run)
    ((picture, told),) = describe(run)
    return picture, told


def edited(picture: torch.Tensor, values: Any, folder: Path) -> Path:
    path = folder / "a.png"
    path.write_bytes(png.encode(picture, json.dumps(values)))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command on something edited; return its sentence, which there is unless it made no difference."""
    code = main(arguments)
    _, err = capsys.readouterr()
    assert code in (0, 1, 2) and not FAULT.search(err) and "Traceback" not in err, err
    assert code != 2 or re.search(r"^fusedream-nb: [^\n]+\.$", err, re.MULTILINE)
    return err if code == 2 else ""


@pytest.mark.parametrize("name", [field.name for field in fields(Record)])
def test_a_record_with_any_field_edited(made, tmp_path, capsys, name: str) -> None:
    picture, told = made
    for junk in JUNK:
        path = edited(picture, {**asdict(told), name: junk}, tmp_path)
        for command in ("show", "replay"):
            error = said(capsys, command, str(path))
            assert not error or str(path) in error


@pytest.mark.parametrize("values", [[], 3, None, "x", {}, {"format": "4"}, {"format": 99}, {"format": 4}])
def test_a_record_that_is_none(made, tmp_path, capsys, values: Any) -> None:
    assert "a.png" in said(capsys, "show", str(edited(made[0], values, tmp_path)))


KNOBS = [[{"lr": 0.1}], [{"step": "x", "lr": 0.1}], [{"step": 0, "zoom": 2}], [{"step": 0, "lr": -1}], [3]]


@pytest.mark.parametrize("knobs", KNOBS)
def test_knobs_that_were_edited(made, tmp_path, capsys, knobs: list[Any]) -> None:
    path = edited(made[0], {**asdict(made[1]), "knobs": knobs}, tmp_path)
    assert said(capsys, "replay", str(path))


@pytest.fixture
def stopped(models, tmp_path) -> Path:
    """The file of a job that was stopped after its first step."""

    def stop(prompts):
        def watch(step):
            raise KeyboardInterrupt

        return watch

    asked = jobs.job(["a blue dog"], [3], None, "cpu", TINY)
    with pytest.raises(KeyboardInterrupt):
        jobs.draw(asked, models, tmp_path / "out", [], watch=stop, every=0)
    (path,) = (tmp_path / "out").glob(".unfinished-*/job.json")
    return path


def resumed(capsys, job: Path) -> str:
    return said(capsys, "generate", "--resume", str(job.parents[1]))


@pytest.mark.parametrize("name", [field.name for field in fields(jobs.Job)])
def test_a_job_with_any_field_edited(stopped: Path, capsys, name: str) -> None:
    whole = json.loads(stopped.read_text())
    for junk in JUNK:
        if stopped.parent.exists():  # or else it was finished
            stopped.write_text(json.dumps({**whole, name: junk}))
            resumed(capsys, stopped)


@pytest.mark.parametrize("content", ["", "[", "[]", "3", "null", "{}", '{"groups": 1}', "\0", "[" * 100_000])
def test_a_job_that_is_none(stopped: Path, capsys, content: str) -> None:
    stopped.write_text(content)
    error = resumed(capsys, stopped)
    assert str(stopped) in error and "begin it again" in error


def test_a_job_that_was_cut_anywhere(stopped: Path, capsys) -> None:
    whole = stopped.read_bytes()
    for end in range(0, len(whole) - 1, 97):
        stopped.write_bytes(whole[:end])
        assert str(stopped) in resumed(capsys, stopped)


@pytest.mark.parametrize(
    "edit",
    [
        lambda saved: [],
        lambda saved: {**saved, "state": None},
        lambda saved: {**saved, "made_by": 3},
        *[
            lambda saved, name=name, junk=junk: {**saved, "state": {**saved["state"], name: junk}}
            for name in ("parameters", "adam", "rngs", "best", "index", "knobs", "log", "seconds", "method")
            for junk in (None, [], "x")
        ],
        lambda saved: {**saved, "state": {k: v for k, v in saved["state"].items() if k != "adam"}},
    ],
)
def test_a_state_that_was_edited(stopped: Path, capsys, edit) -> None:
    path = stopped.parent / "batch-0" / FILE
    torch.save(edit(torch.load(path)), path)
    error = resumed(capsys, stopped)
    assert not error or str(path) in error


def test_an_edited_record_never_replaces_a_picture(made, tmp_path) -> None:
    picture, told = made
    path = save(picture, told, tmp_path)
    path.write_bytes(png.encode(picture, json.dumps({**asdict(told), "steps_done": "x"})))
    assert save(picture, told, tmp_path) != path


def test_a_part_of_a_table_that_was_cut_or_overwritten(tmp_path) -> None:
    folder = Folder(str(tmp_path))
    numbers = {"augclip": 0.1, "clip": [0.1] * 8, "judge": [0.2] * 8, "seconds": 1.0}
    folder.add(
        [{"caption": f"dog {i}", "method": "m", "seed": 0, "picture": "p", **numbers} for i in range(3)]
    )
    (path,) = tmp_path.rglob("*.parquet")
    whole, rng = path.read_bytes(), random.Random(0)
    for end in range(0, len(whole), 211):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"is damaged; delete it, and the same command makes"):
            folder.records("m", 0)
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.sample(range(len(data)), 8):
            data[place] = rng.randrange(256)
        path.write_bytes(data)
        try:
            folder.records("m", 0)
        except ValueError as error:
            assert "is damaged; delete it" in str(error)
