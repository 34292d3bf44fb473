"""The notebooks run on a model that is not the stickers': random weights stand where the real ones would.

Every file has the name and the form that a published model has, so the notebooks load them by
FUSEDREAM_MODEL, from a cache of the test's own. One notebook runs on narrow stand-ins; with
``-m random_model`` so do all that a BigGAN can draw, and one on stand-ins of the real widths, which is slow
without a GPU. What they draw is noise: the test asks that they come to their end, with pictures and verdicts.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import standins

from fusedream_nb.models.weights import CLIP, JUDGE
from fusedream_nb.reproduce.kernels import WakefulManager

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
BIGGAN = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "14", "15")  # need no VQGAN
NAME = "biggan-256"
ONE = "01"  # runs by default, and on networks of the real shapes too


@pytest.fixture
def asked(request):
    """Skip what is marked ``random_model`` unless the marker was asked for by its name."""
    marked = request.node.get_closest_marker("random_model")
    if marked and "random_model" not in (request.config.getoption("-m") or ""):
        pytest.skip("takes minutes; -m random_model runs it")


@pytest.fixture
def random_model(asked, request, monkeypatch, tmp_path):
    """Set FUSEDREAM_MODEL to a stand-in, its encoders beside it in a cache of the test's own."""
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path))
    monkeypatch.setenv("FUSEDREAM_MODEL", NAME)
    monkeypatch.setenv("FUSEDREAM_BUDGET", "smoke")
    standins.build(tmp_path, NAME, CLIP, JUDGE, "lpips-squeeze", narrow=request.param == "small")


def cases():
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        number = path.name[:2]
        for shape in ("small", "real"):
            if number in BIGGAN and (shape == "small" or number == ONE):
                marks = () if (shape, number) == ("small", ONE) else pytest.mark.random_model
                yield pytest.param(shape, path, id=f"{path.stem}-{shape}", marks=marks)


@pytest.mark.parametrize(("random_model", "path"), list(cases()), indirect=["random_model"])
def test_a_notebook_runs_on_another_model(random_model, path):
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(
        notebook,
        timeout=7200,
        kernel_name="python3",
        resources=resources,
        kernel_manager_class=WakefulManager,
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert f"{NAME} on cpu" in text  # not the stickers
    assert " · not counted\n" in text  # at smoke no verdict counts
    assert any("image/png" in output.get("data", {}) for output in outputs)
