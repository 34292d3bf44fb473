"""The book: every figure with its picture and verdicts, every page and module in its place."""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import re
from pathlib import Path

import pytest
from PIL import Image

import fusedream_nb
from fusedream_nb.reproduce.figures import FIGURES

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def conf():
    spec = importlib.util.spec_from_file_location("book_conf", ROOT / "docs" / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gallery_has_each_figure_with_picture_verdict_and_command(conf, tmp_path):
    text = conf.gallery(tmp_path)
    for figure in FIGURES:
        (section,) = re.findall(rf"^\({figure.id}\)=\n(.*?)(?=^\(|\Z)", text, re.MULTILINE | re.DOTALL)
        assert figure.caption in section
        (name,) = re.findall(rf"^!\[.+\]\(_figures/({figure.id}\.(?:png|jpeg))\)$", section, re.MULTILINE)
        with Image.open(tmp_path / name) as image:
            assert name.endswith(image.format.lower())
        assert re.search(r"^- \*\*(holds|differs|not counted)\*\*: ", section, re.MULTILINE)
        assert f"`fusedream-nb reproduce {figure.id}`" in section


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebooks_page_keeps_alternative_texts_and_folds_solutions(conf, path):
    made = json.loads(conf.page(json.loads(path.read_text("utf-8"))))
    for cell in made["cells"]:
        assert not re.search(r"!\[[^]]*\]\(https?:", "".join(cell["source"]))  # no picture from elsewhere
        tags = cell["metadata"]["tags"]
        assert ("hide-input" in tags) == bool({"solution", "setup"} & set(tags))
        for output in cell.get("outputs", []):
            for kind in {"image/png", "image/jpeg"} & output.get("data", {}).keys():
                alt = output["metadata"][kind]["alt"]
                assert alt.strip() and alt in cell["metadata"]["mystnb"]["image"]["alt"]


def test_the_api_lists_every_module(conf):
    found = {m.name for m in pkgutil.walk_packages(fusedream_nb.__path__, "fusedream_nb.") if not m.ispkg}
    listed = set(re.findall(r"automodule:: (\S+)", conf.api()))
    assert listed == {name for name in found if not name.endswith("__main__")}


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    listed = {line for block in blocks for line in block.splitlines() if not line.startswith(":")}
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    pages |= {f"../workshop/{path.stem}" for path in (ROOT / "workshop").glob("*.md")}
    assert listed == pages | {"../notebooks/*", "../CHANGELOG", "../CONTRIBUTING"}
