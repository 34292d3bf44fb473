"""Notebook 15 in JupyterLab, as a class uses it; its panel's portrait on the way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

pytestmark = pytest.mark.browser

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "15_live_studio.ipynb"


@pytest.fixture(scope="module")
def cells() -> dict[str, int]:
    """Where the notebook's cells are, by their ids."""
    return {cell["id"]: i for i, cell in enumerate(nbformat.read(NOTEBOOK, as_version=4).cells)}


@pytest.fixture(scope="module")
def book(lab: Any, cells: dict[str, int]) -> Any:
    """Notebook 15, its first panel at work."""
    shutil.copy(NOTEBOOK, lab.folder)
    opened = lab.open(NOTEBOOK.name)
    for name in ("setup", "parameters", "load", "single"):
        opened.run(cells[name])
    opened.kernel.wait("session.step is not None")
    return opened


def test_the_tour_steered_by_hand(book: Any, wait_for: Any) -> None:
    panel, kernel = book.panel(), book.kernel
    panel.type("Steps", "2000")
    kernel.wait("session.run.knobs['steps'] == 2000 and session.status == 'playing' and session.step.index > 9")
    picture = panel.picture()
    panel.drag("Learning rate", 0.6)
    kernel.wait("session.run.knobs['lr'] > 0.02")
    panel.drag("Cutout", 0.5)
    log = kernel.wait("session.run.knobs['cutout'] < 1 and session.run.log")
    assert [set(entry) - {"step"} for entry in log][0] == {"steps"}
    kernel.wait(f"session.step.index > {log[-1]['step'] + 1}")
    wait_for(lambda: panel.picture() != picture)
    wait_for(lambda: any("cutout" in mark for mark in panel.marks()), panel.marks)
    if folder := os.environ.get("FUSEDREAM_SCREENSHOTS"):
        kernel.wait("session.step.index > 60")
        panel.root.screenshot(path=str(Path(folder) / "panel.png"))
    panel.click("Pause")
    wait_for(lambda: "paused" in panel.text(), panel.text)
    still = kernel.ask("session.step.index")
    panel.click("Step")
    wait_for(lambda: f"step {still + 1} of" in panel.text(), panel.text)
    assert kernel.ask("session.step.index") == still + 1
    panel.write("Words", "a photo of a red car")
    panel.click("Step")
    kernel.wait("session.run.knobs['prompt'] == ['a photo of a red car']")
    panel.click("Save")
    (path,) = kernel.wait("[str(path) for path in session.saved]")
    panel.click("Stop")
    kernel.wait("session.status == 'stopped'")
    assert kernel.ask(f"fd.replay({path!r})[1]") == 0


@pytest.mark.parametrize(
    ("cell", "session", "label", "knob"),
    [
        ("compose", "duet", "λ", "lam"),
        ("transport", "plan", "ε", "epsilon"),
        ("contest", "contest", "Shift", "translation"),
    ],
)
def test_every_methods_panel_is_steered(
    book: Any, cells: dict[str, int], cell: str, session: str, label: str, knob: str
) -> None:
    kernel = book.kernel
    book.run(cells[cell])
    kernel.wait(f"{session}.step is not None")
    panel = book.panel(["single", "compose", "transport", "contest"].index(cell))
    panel.click("Pause")
    kernel.wait(f"{session}.status != 'playing'")
    before = kernel.ask(f"{session}.run.wanted['{knob}']")
    panel.drag(label, 0.25)
    kernel.wait(f"{session}.run.wanted['{knob}'] != {before}")
    panel.click("Stop")
    kernel.wait(f"{session}.status in ('stopped', 'done')")
    assert kernel.ask("session.status") == "stopped"
    book.run(cells[f"{cell}-result" if cell != "contest" else "board"])
    book.until_done(cells[f"{cell}-result" if cell != "contest" else "board"])
