"""Ctrl-C once, twice and again: what is said is what --resume can do; the bar shows the words in force."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fusedream_nb.cli import main
from fusedream_nb.cli.terminal import Bar
from fusedream_nb.records import jobs

ASKED = ("generate", "a blue dog", "--budget", "smoke", "--device", "cpu", "--every", "0", "--out")
KINDS = {"plain": (), "film": ("--film",), "transport": ("--transport", "--model", "stickers")}


def press(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_ctrl_c_while_the_picture_is_saved(tmp_path: Path, monkeypatch, capsys, kind: str) -> None:
    with monkeypatch.context() as keys:
        keys.setattr(Bar, "next", lambda bar, prompts: press)
        keys.setattr(jobs, "describe", press)
        assert main([*ASKED, str(tmp_path), *KINDS[kind]]) == 130
    out, err = capsys.readouterr()
    assert out == "" and f"Stopped; --resume {tmp_path} goes on from there." in err
    assert main(["generate", "--resume", str(tmp_path), "a red car"]) == 0
    out, err = capsys.readouterr()
    assert "red-car" in out and re.search(r"^a red car ━.* step 3/3", err, re.MULTILINE)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("where", ["fusedream_nb.models.load", "fusedream_nb.method.budgets.budget"])
def test_before_the_first_step_nothing_is_promised(tmp_path: Path, monkeypatch, capsys, where: str) -> None:
    name = where.rpartition(".")[2]
    monkeypatch.setattr(where, press)
    monkeypatch.setattr(f"fusedream_nb.{name}", press, raising=False)
    assert main([*ASKED, str(tmp_path / "new")]) == 130
    assert capsys.readouterr() == ("", "fusedream-nb: Stopped.\n")
    assert not list(tmp_path.iterdir())
