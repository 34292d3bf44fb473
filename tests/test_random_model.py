"""Every notebook runs on models that are not the stickers', from its first cell to its last.

Stand-ins with random weights have the names and the form of the published files, so the notebooks load them
as they would load those. What they draw is noise: a notebook has to come to its end, with pictures and
verdicts that do not count. The quickest run by default, all with ``-m heavy``, and one of the real widths,
slow without a GPU, with ``-m random_model``. The cells run here, without a kernel of their own, which nbval
gives them on the stickers.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import standins
from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from traitlets.config import Config

from fusedream_nb.models.weights import CLIP, JUDGE

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
QUICK = ("00", "01", "02", "03", "06", "11", "12", "13")
GRIDS = {"11": "vqgan-imagenet-16384", "12": "vqgan-imagenet-16384", "13": "vqgan-wikiart"}
SMALL = {"CANVAS": {"canvas": (96, 96)}}  # of a VQGAN, where the notebook has one


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-ins that the notebooks load, in a cache of their own."""
    folder = tmp_path_factory.mktemp("cache")
    standins.build(folder, "biggan-128", CLIP, JUDGE, "lpips-squeeze", *set(GRIDS.values()))
    return folder


def run(path: Path, folder: Path, model: str, parameters: dict, patch: pytest.MonkeyPatch) -> None:
    """Run a notebook's cells one after the other; what they show must be pictures and verdicts."""
    for name, value in {"CACHE": str(folder), "MODEL": model, "BUDGET": "smoke"}.items():
        patch.setenv(f"FUSEDREAM_{name}", value)
    text, shown = "", []
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.display_trap.hook = CapturingDisplayHook(shell=shell, outputs=shown)
    try:
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                with capture_output() as printed:
                    shell.run_cell("".join(cell["source"])).raise_error()
                text += printed.stdout
            if "parameters" in cell["metadata"].get("tags", []):
                shell.user_ns.update({name: parameters[name] for name in parameters.keys() & shell.user_ns})
    finally:
        InteractiveShell.clear_instance()
    assert f"{model} on cpu" in text  # not the stickers
    assert " · not counted\n" in text  # at smoke no verdict counts
    assert any("image/jpeg" in output["data"] for output in shown)


def marked(path: Path) -> object:
    return pytest.param(path, id=path.stem, marks=() if path.name[:2] in QUICK else pytest.mark.heavy)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [marked(path) for path in NOTEBOOKS])
def test_a_notebook_runs_on_another_model(path, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if path.name.startswith("10"):  # the one that measures with Inception
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        standins.save_inception(tmp_path / "hub" / "checkpoints" / Path(URL_INCEPTION_V3).name)
    run(path, store, GRIDS.get(path.name[:2], "biggan-128"), SMALL, monkeypatch)


@pytest.mark.random_model
def test_a_notebook_runs_at_the_real_widths(request, tmp_path, monkeypatch):
    if "random_model" not in (request.config.getoption("-m") or ""):
        pytest.skip("takes minutes; -m random_model runs it")
    standins.build(tmp_path, "biggan-256", CLIP, JUDGE, "lpips-squeeze", narrow=False)
    run(NOTEBOOKS[1], tmp_path, "biggan-256", {}, monkeypatch)
