"""The contest of notebook 15: every laptop keeps a file, and the files of a class merge."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import nbformat
import pytest
import workshop_build as build

import fusedream_nb as fd
from fusedream_nb.notebook import show

CELLS = {cell.id: cell.source for cell in nbformat.read(build.notebooks(["15"])[0], as_version=4).cells}


@pytest.fixture(scope="module")
def shared():
    models, words = fd.load(device="cpu"), "a photo of a purple lion"
    contest = fd.live(fd.fusedream(words, models, budget="smoke"), mode="inline", panel=False)
    return {"fd": fd, "show": show, "Path": Path, "models": models, "CONTEST": words, "contest": contest}


def enter(shared, folder, player, number, monkeypatch):
    """Enter a player on a laptop with a number; return what its folder then holds."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(uuid, "getnode", lambda: number)
    exec(CELLS["board"].replace('PLAYER = "nobody"', f"PLAYER = {player!r}"), shared)
    return sorted(folder.glob("*.jsonl"))


def test_the_files_of_several_laptops_merge(shared, tmp_path, monkeypatch, capsys):
    (one,) = enter(shared, tmp_path / "one", "Añá", 1, monkeypatch)
    enter(shared, tmp_path / "one", "Añá", 1, monkeypatch)  # again: another line, the same file
    assert len(one.read_text("utf-8").splitlines()) == 2
    (two,) = enter(shared, tmp_path / "two", "Bo", 2, monkeypatch)
    assert one.name != two.name
    better = json.loads(two.read_text("utf-8")) | {"score": 0.999}
    other = better | {"contest": "other words, stickers", "player": "Cy"}
    two.write_text("".join(json.dumps(row) + "\n" for row in (better, other)))
    together = tmp_path / "together"
    together.mkdir()
    for path in (one, two):
        (together / path.name).write_bytes(path.read_bytes())
    assert enter(shared, together, "nobody", 3, monkeypatch) == [together / one.name, together / two.name]
    capsys.readouterr()
    exec(CELLS["ranking"], shared)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["1.", "Bo", "0.999"]
    assert sorted(line.split()[1] for line in lines) == ["Añá", "Bo", "nobody"]
