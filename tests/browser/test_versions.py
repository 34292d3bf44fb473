"""The same steering in JupyterLab with an old and with the newest kernel and widgets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.heavy]

VERSIONS = {
    "old": ("ipykernel==6.30.*", "ipywidgets==7.7.1", "jupyterlab-widgets==1.1.*", "jupyterlab"),
    "newest": ("ipykernel", "ipywidgets", "jupyterlab"),
}
LIVE = """
import ipykernel, ipywidgets
import fusedream_nb as fd
from fusedream_nb.method.budgets import Budget
models = fd.load(device="cpu")
tiny = Budget("tiny", M=4, k=2, steps=100_000, copies=2, lr=0.02, start_copies=1, judged_copies=2)
session = fd.live(fd.fusedream("a blue dog", models, seed=3, budget=tiny), out="made")
"""


@pytest.fixture(params=VERSIONS)
def book(
    request: Any,
    chromium: Any,
    environment: Callable[..., Path],
    lab_of: Callable[..., Any],
    tmp_path: Path,
) -> Iterator[Any]:
    """A session in a Lab of other versions."""
    with lab_of(environment(*VERSIONS[request.param]), chromium, tmp_path) as lab:
        opened = lab.open(lab.write("versions.ipynb", LIVE))
        opened.run(0)
        opened.kernel.wait("session.step is not None and session.step.index > 1")
        versions = opened.kernel.ask("[ipykernel.__version__, ipywidgets.__version__]")
        print(f"ipykernel {versions[0]}, ipywidgets {versions[1]}")
        assert request.param == "newest" or versions == [versions[0], "7.7.1"]
        yield opened


def test_a_run_is_steered_paused_saved_and_replayed(book: Any, wait_for: Any) -> None:
    panel, kernel = book.panel(), book.kernel
    picture = panel.picture()
    assert kernel.ask("session.run.log") == []  # nothing was turned by drawing it
    panel.drag("Learning rate", 0.85)
    log = kernel.wait("session.run.log")
    wait_for(lambda: kernel.ask("session.step.index") > log[-1]["step"] + 1)
    wait_for(lambda: panel.picture() != picture)
    panel.click("Pause")
    wait_for(lambda: "paused" in panel.text(), panel.text)
    still = kernel.ask("session.step.index")
    panel.click("Step")
    wait_for(lambda: f"step {still + 1} of" in panel.text(), panel.text)
    panel.write("Words", "a red car")
    kernel.wait("session.run.wanted['prompt'] == ['a red car']")
    panel.click("Step")
    kernel.wait("session.run.knobs['prompt'] == ['a red car']")
    panel.click("Stop")
    kernel.wait("session.status == 'stopped'")
    panel.click("Save")
    (path,) = kernel.wait("[str(path) for path in session.saved]")
    assert kernel.ask(f"fd.replay({path!r})[1]") == 0
