"""Run All, scroll, look: what most people do. The panels' pictures are there, and change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

pytestmark = pytest.mark.browser

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TALL = "# nothing\n" * 40
LIVE = """
import fusedream_nb as fd
from dataclasses import replace
models = fd.load(device="cpu")
tiny = replace(fd.budget("smoke"), steps=100_000)
session = fd.live(fd.fusedream("a blue dog", models, seed=3, budget=tiny), out="made")
"""
BUSY = "import time; time.sleep(3)"  # as a cell that waits for a result, while the panel is drawn


@pytest.fixture(scope="module")
def book(lab: Any) -> Any:
    """A notebook of which all cells have been begun at once."""
    opened = lab.open(lab.write("all.ipynb", TALL, LIVE, BUSY, *[TALL] * 4))
    opened.run_all()
    opened.until_all_done()
    return opened


def test_the_picture_is_there_and_changes(book: Any) -> None:
    book.panel().watch()


def test_a_page_reloaded_in_mid_run_shows_it_again(book: Any) -> None:
    at = book.kernel.ask("session.step.index")
    book.reload()
    book.panel().watch()
    assert book.kernel.ask("session.step.index") > at


def test_a_second_window_shows_the_same_run(book: Any, wait_for: Any) -> None:
    book.save()
    other = book.lab.open(book.name)
    other.panel().watch()
    book.panel().watch()
    other.panel().click("Pause")
    wait_for(lambda: "paused" in book.panel().text(), book.panel().text)
    other.page.close(run_before_unload=False)
    book.panel().click("Play")


def test_restart_and_run_all(book: Any) -> None:
    before = book.kernel.ask("__import__('os').getpid()")
    book.restart_and_run_all()
    book.until_all_done()
    assert book.kernel.ask("__import__('os').getpid()") != before
    book.panel().watch()
    book.panel().click("Stop")
    book.kernel.wait("session.status == 'stopped'")


@pytest.mark.parametrize("number", ["15", "02", "07", "11"])
def test_every_panel_of_a_notebook(lab: Any, number: str) -> None:
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    made = nbformat.read(path, as_version=4)
    for cell in made.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source += '\nBUDGET = "smoke"'
    nbformat.write(made, lab.folder / path.name)
    book = lab.open(path.name)
    book.run_all()
    book.until_all_done()
    runs = [line for cell in made.cells for line in cell.source.splitlines() if "= fd.live(" in line]
    for which, line in enumerate(line for line in runs if 'mode="inline"' not in line):
        panel = book.panel(which)
        if "seconds=" in line:  # a clock has stopped it
            panel.look()
            continue
        panel.type("Steps", "2000")
        panel.click("Play")
        panel.watch()
        if (folder := os.environ.get("FUSEDREAM_SCREENSHOTS")) and not which:
            panel.root.screenshot(path=str(Path(folder) / f"panel-{number}.png"))
        panel.click("Stop")
    book.close()
