"""The table of figures: all that the papers have, each found in its notebook if that is there."""

from __future__ import annotations

import json

import pytest

from fusedream_nb.cli import main
from fusedream_nb.reproduce import figures

IDS = [*(f"fd-{i:02}" for i in range(1, 19)), "fd-table-1", *(f"ot-{i:02}" for i in range(1, 7)), "new"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDREAM_NOTEBOOKS", str(tmp_path))
    (tmp_path / "01_attack.ipynb").write_text("{}")
    return tmp_path


def test_every_figure_of_both_papers_is_there_once():
    assert [figure.id for figure in figures.FIGURES] == IDS


def test_captions_are_short_and_notebooks_have_two_digits():
    for figure in figures.FIGURES:
        assert 10 < len(figure.caption) < 90
        assert figure.notebook.isdigit()
        assert len(figure.notebook) == 2


def test_figures_are_chosen_in_the_papers_order_whatever_the_case():
    assert [figure.id for figure in figures.chosen(["OT-01", "fd-02", "fd-02"])] == ["fd-02", "ot-01"]
    assert len(figures.chosen(["fd-02", "all"])) == len(IDS)
    assert [figure.id for figure in figures.chosen(["12", "00"])] == ["ot-04"]
    with pytest.raises(ValueError, match="'fd-99'; known are all, fd-01"):
        figures.chosen(["fd-01", "fd-99"])


def test_notebooks_are_found_by_figure_by_number_and_all(folder):
    for name in ("02_cat.ipynb", "15_live.ipynb", "notes.ipynb"):
        (folder / name).write_text("{}")
    named = {
        ("fd-02", "01"): ["01_attack.ipynb"],
        ("15", "fd-03"): ["02_cat.ipynb", "15_live.ipynb"],
        ("ALL",): ["01_attack.ipynb", "02_cat.ipynb", "15_live.ipynb"],
    }
    for names, found in named.items():
        assert [path.name for path in figures.notebooks(names)] == found
    for names in (["ot-01"], ["fd-02", "16"]):
        with pytest.raises(FileNotFoundError, match="FUSEDREAM_NOTEBOOKS"):
            figures.notebooks(names)


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        *((name, name) for name in IDS),
        ("fd-05-curves", "fd-05"),
        ("fd-table-1-b", "fd-table-1"),
        ("fd-050", None),
        ("start", None),
        ("", None),
    ],
)
def test_a_part_belongs_to_its_figure(name, owner):
    assert figures.owner(name) == owner


def test_the_status_is_whether_the_notebook_is_there(folder):
    rows = {row["id"]: row for row in figures.listing()}
    assert rows["fd-02"]["status"] == "ready"
    assert rows["fd-02"]["notebook"] == "01_attack.ipynb"
    assert (rows["fd-03"]["status"], rows["fd-03"]["notebook"]) == ("no notebook", "02")
    (folder / "02_cat.ipynb").write_text("{}")
    assert {row["id"]: row["status"] for row in figures.listing()}["fd-03"] == "ready"


def test_the_notebooks_are_those_of_the_repository_unless_told_otherwise(folder, monkeypatch):
    assert figures.folder() == folder
    monkeypatch.delenv("FUSEDREAM_NOTEBOOKS")
    assert figures.folder().name == "notebooks"


def test_the_command_lists_them_for_people_and_for_programs(folder, capsys):
    assert main(["figures", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == IDS
    assert rows == figures.listing()
    assert main(["figures"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in IDS)
    assert "01_attack.ipynb" in shown
    assert [line.split()[0] for line in shown.splitlines()] == IDS  # a row is a line where a program reads
