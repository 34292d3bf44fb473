"""A run steered by mouse and keyboard, once in each front end; each test goes on from the one before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.browser

FRONTS = {  # what is installed on top of this environment, and what serves it
    "lab": ((), "jupyterlab"),
    "notebook": (("notebook>=7.2", "ipywidgets>=8", "ipykernel"), "notebook"),
    "old": (
        ("ipykernel==6.30.*", "ipywidgets==7.7.1", "jupyterlab-widgets==1.1.*", "jupyterlab"),
        "jupyterlab",
    ),
}
LIVE = """
import ipywidgets
import fusedream_nb as fd
from dataclasses import replace
models = fd.load(device="cpu")
tiny = replace(fd.budget("smoke"), steps=100_000)
session = fd.live(fd.fusedream("a blue dog", models, seed=3, budget=tiny), out="made")
"""
OTHER = """
other = fd.live(fd.fusedream("a red car", models, seed=4, budget=tiny))
"""


@pytest.fixture(scope="module", params=FRONTS)
def book(
    request: Any,
    chromium: Any,
    environment: Callable[..., Any],
    lab_of: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """A notebook whose first cell has begun a session, which goes on."""
    needed, front = FRONTS[request.param]
    python = environment(*needed) if needed else sys.executable
    with lab_of(python, chromium, tmp_path_factory.mktemp(request.param), front) as lab:
        opened = lab.open(lab.write("steering.ipynb", LIVE, OTHER))
        opened.run(0)
        opened.kernel.wait("session.step is not None and session.step.index > 1")
        old = opened.kernel.ask("ipywidgets.__version__") == "7.7.1"
        assert old == (request.param == "old")
        yield opened


def test_dragging_a_slider_changes_the_run_while_it_goes_on(book: Any, wait_for: Any) -> None:
    panel, kernel = book.panel(), book.kernel
    before, picture = kernel.ask("session.step.index"), panel.picture()
    panel.drag("Learning rate", 0.85)
    log = kernel.wait("session.run.log")
    kernel.wait("0.1 < session.run.knobs['lr'] < 0.6")
    assert log[0]["step"] >= before > 0
    wait_for(lambda: kernel.ask("session.step.index") > log[0]["step"] + 2)
    assert kernel.ask("session.status") == "playing"
    wait_for(lambda: panel.picture() != picture)
    wait_for(lambda: any("lr" in mark for mark in panel.marks()), panel.marks)


def test_pause_stands_still_and_step_makes_one(book: Any, wait_for: Any) -> None:
    panel, kernel = book.panel(), book.kernel
    panel.click("Pause")
    kernel.wait("session.status == 'paused'")
    wait_for(lambda: "paused" in panel.text(), panel.text)
    still = kernel.ask("session.step.index")
    book.page.wait_for_timeout(500)  # long enough for many steps
    assert kernel.ask("session.step.index") == still
    wait_for(lambda: f"step {still} of" in panel.text(), panel.text)
    panel.click("Step")
    wait_for(lambda: f"step {still + 1} of" in panel.text(), panel.text)
    book.page.wait_for_timeout(500)
    assert kernel.ask("[session.step.index, session.status]") == [still + 1, "paused"]


def test_a_tab_opened_again_shows_the_panel_as_it_is(book: Any, wait_for: Any) -> None:
    before = book.panel().readout("Learning rate"), book.panel().picture()
    book.close()
    book.open()
    panel = book.panel()
    wait_for(lambda: "paused" in panel.text(), panel.text)
    wait_for(lambda: (panel.readout("Learning rate"), panel.picture()) == before)
    panel.click("Play")
    book.kernel.wait("session.status == 'playing'")
    panel.click("Pause")
    wait_for(lambda: "paused" in panel.text(), panel.text)


def test_other_words_and_typed_numbers(book: Any, wait_for: Any) -> None:
    panel, kernel = book.panel(), book.kernel
    panel.write("Words", "a red car")
    kernel.wait("session.run.wanted['prompt'] == ['a red car']")
    panel.type("Copies", "3")
    kernel.wait("session.run.wanted['copies'] == 3")
    arrows = book.lab.front == "jupyterlab"  # Notebook 7 keeps arrow keys to itself
    for value in (0.01, 0.02) if arrows else ():
        panel.press("Noise", "ArrowRight")
        kernel.wait(f"abs(session.run.wanted['noise'] - {value}) < 1e-9")
    panel.click("Step")
    kernel.wait("session.run.knobs == session.run.wanted")
    picture = panel.picture()
    panel.click("Play")
    wait_for(lambda: panel.picture() != picture)


def test_two_panels_do_not_mix(book: Any, wait_for: Any) -> None:
    kernel = book.kernel
    book.run(1)
    kernel.wait("other.step is not None")
    one, other = book.panel(0), book.panel(1)
    log = kernel.ask("session.run.log")
    other.drag("Cutout", 0.25)
    kernel.wait("other.run.log and 0 < other.run.knobs['cutout'] < 0.5")
    assert kernel.ask("session.run.log") == log
    assert one.readout("Cutout").startswith("1")
    other.click("Stop")
    wait_for(lambda: "stopped" in other.text(), other.text)
    at = kernel.ask("session.step.index")
    kernel.wait(f"session.step.index > {at + 1}")
    assert "stopped" not in one.text()
    assert kernel.ask("other.run.log[-1]['step'] <= other.step.index")


def test_stop_save_and_the_same_picture_again(book: Any, wait_for: Any) -> None:
    panel, kernel = book.panel(), book.kernel
    panel.click("Stop")
    kernel.wait("session.status == 'stopped'")
    panel.click("Save")
    (path,) = kernel.wait("[str(path) for path in session.saved]")
    wait_for(lambda: "Saved" in panel.text(), panel.text)
    assert kernel.ask(f"fd.replay({path!r})[1]") == 0
    assert [next(reversed(entry)) for entry in kernel.ask(f"fd.read_record({path!r}).knobs")][-1] in (
        "noise",
        "copies",
        "prompt",
    )
