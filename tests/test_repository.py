"""What must be true of the files themselves, whatever they compute."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

import fusedream_nb
from tools.minutes import LINE, write
from tools.point_at import point, project

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURE = re.compile(r"!\[(?P<alt>[^\]]*)\]\(|<img(?P<attributes>[^>]*)>")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@cache
def read(path):
    return json.loads(path.read_text("utf-8"))


def source(cell):
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def cells(path, kind):
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == kind]


def tagged(path, tag):
    return [cell for cell in read(path)["cells"] if tag in cell["metadata"].get("tags", [])]


def files():
    """The text files of the repository: those that git knows or would take; all in an unpacked archive."""
    git = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = git.stdout.split("\0") if git.returncode == 0 else [str(p) for p in ROOT.rglob("*.*")]
    for name in filter(None, names):
        path = ROOT / name
        if path.is_file():
            try:
                yield path, path.read_text("utf-8")
            except UnicodeDecodeError:
                continue


def test_no_file_names_a_machine_or_a_registry():
    root = r"/(?:home|Users|work|root|private|tmp/[a-z]{1,3}|opt/(?:venv|train))/"
    path = re.compile(r"(?:^|[\s\"'=:(`])" + root + r"\w", re.MULTILINE)
    host = re.compile(
        r"registry *= *\"http|\"resolved\": *\"http|https?://[^ \"]+/simple/?[\"\s]"
        r"|files\.pythonhosted\.org|registry\.npm|index-url +https?://(?!download\.pytorch\.org)"
    )
    mine = Path(__file__).resolve()
    found = [
        f"{file.relative_to(ROOT)}: {match[0].strip()}"
        for file, text in files()
        for pattern in (path, host)
        if file != mine and (match := pattern.search(text))
    ]
    assert not found


def test_no_lock_file():
    assert not [file for file, _ in files() if file.name in ("uv.lock", "poetry.lock", "package-lock.json")]


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    cited = re.search(r"^version: *(\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    changed = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert cited[1] == changed[1] == project["version"] == fusedream_nb.__version__


def test_both_papers_are_cited():
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert "arXiv:2112.01573" in text
    assert "arXiv:2204.08472" in text


def test_dependencies_have_lower_bounds_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    assert not [name for name in named if re.search(r"[<~!]|==|\+cpu| @ ", name) or ">=" not in name]


def test_everything_that_is_imported_is_a_dependency():
    """A fresh environment, or one with an extra, has what the package imports: nothing comes by luck."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [row for name in extras for row in extras[name] if name != "test"]
    named = {re.split(r"[^\w.-]", row)[0].lower().replace("_", "-") for row in wanted}
    other = {"pil": "pillow", "open-clip": "open-clip-torch", "ot": "pot"}
    imported = set()
    for file in (ROOT / "fusedream_nb").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.partition(".")[0])
    foreign = {name.lower().replace("_", "-") for name in imported - sys.stdlib_module_names}
    foreign = {other.get(name, name) for name in foreign} - {"fusedream-nb"}
    assert foreign <= named


@pytest.mark.parametrize("name", ["binder/postBuild", ".ci/run"])
def test_scripts_are_executable_and_stop_at_the_first_error(name):
    script = ROOT / name
    text = script.read_text("utf-8")
    assert script.stat().st_mode & 0o111
    assert text.startswith(("#!/bin/bash", "#!/usr/bin/env bash"))
    assert re.search(r"^set -e", text, re.MULTILINE)


def test_there_are_notebooks():
    assert NOTEBOOKS


@each_notebook
def test_a_notebook_is_small_and_carries_no_widget_state(path):
    assert path.stat().st_size <= 400_000
    assert "widgets" not in read(path)["metadata"]
    assert "application/vnd.jupyter.widget-state+json" not in path.read_text("utf-8")


@each_notebook
def test_a_notebook_has_one_title_and_one_cell_of_parameters(path):
    titles = [
        line
        for cell in cells(path, "markdown")
        for line in re.sub(r"```.*?```", "", source(cell), flags=re.DOTALL).splitlines()
        if line.startswith("# ")
    ]
    assert len(titles) == 1
    (parameters,) = tagged(path, "parameters")
    names = {t.id for n in ast.parse(source(parameters)).body for t in getattr(n, "targets", [])}
    assert {"BUDGET", "MODEL", "DEVICE", "SEED", "CHECKPOINTS"} <= names


@each_notebook
def test_all_notebooks_share_one_setup_cell_that_spares_colabs_own(path):
    (setup,), (first,) = tagged(path, "setup"), tagged(NOTEBOOKS[0], "setup")
    assert source(setup) == source(first)
    assert cells(path, "code")[0] == setup
    assert all(name in source(setup) for name in ("torch", "ipykernel", "ipywidgets", "COLAB_RELEASE_TAG"))


def test_in_colab_the_setup_cell_installs_a_tag_and_names_what_to_click(tmp_path, monkeypatch, capsys):
    asked = []
    shell = SimpleNamespace(run_line_magic=lambda *line: asked.append(line))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    exec(source(tagged(NOTEBOOKS[0], "setup")[0]), {"get_ipython": lambda: shell})
    ((magic, line),) = asked
    assert magic == "pip" and f"torch=={version('torch')} " in line  # Colab's own stays
    assert line.endswith(f'@v{fusedream_nb.__version__}"')
    assert "Change runtime type" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_badges_setup_and_urls_name_one_repository(tmp_path):
    """A command points them all at a fork, and back; today it has nothing to do."""
    names = ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "README.md", "docs", "workshop", "notebooks")
    for path in (
        path for name in names for path in [ROOT / name, *(ROOT / name).glob("*")] if path.is_file()
    ):
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    home, tag = project(tmp_path)
    assert point(home, root=tmp_path) == []
    changed = point("someone/fork", "a-branch", tmp_path)
    assert len(changed) == len(NOTEBOOKS) + 5
    assert not [path for path in changed if home in path.read_text("utf-8")]
    for path in NOTEBOOKS:
        text = (tmp_path / "notebooks" / path.name).read_text("utf-8")
        assert f"colab.research.google.com/github/someone/fork/blob/a-branch/notebooks/{path.name}" in text
        assert re.search(rf"mybinder\.org/v2/gh/someone/fork/a-branch\S+notebooks/{path.name}", text)
        assert "git+https://github.com/someone/fork@a-branch" in text
    point(home, tag, tmp_path)
    assert all(path.read_bytes() == (ROOT / path.relative_to(tmp_path)).read_bytes() for path in changed)


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)  # the first is of the stickers
def test_estimated_minutes_are_written_where_a_notebook_speaks_of_a_gpu(path, tmp_path):
    copy = shutil.copy(path, tmp_path / path.name)
    for minutes in (7, 8):  # the second time in place of the first
        write(copy, LINE.format(minutes, "colab"))
    old, new = path.read_text("utf-8").splitlines(), copy.read_text("utf-8").splitlines()
    (changed,) = (line for line, before in zip(new, old, strict=True) if line != before)
    assert changed.count("n a T4 about 8 min") == 1 and "GPU" not in changed and "about 7" not in changed
    json.loads(copy.read_text("utf-8"))


@each_notebook
def test_every_picture_has_an_alternative_text(path):
    for cell in cells(path, "markdown"):
        for match in PICTURE.finditer(source(cell)):
            assert match["alt"] or re.search(r"alt=[\"'][^\"']+", match["attributes"] or ""), match[0]
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            for kind in output.get("data", {}):
                assert not kind.startswith("image/") or output["metadata"][kind]["alt"].strip()


@each_notebook
def test_a_notebook_keeps_the_recipes_measure(path):
    exercises = tagged(path, "exercise") + tagged(path, "solution") + tagged(path, "check")
    assert 20 <= len(read(path)["cells"]) - len(exercises) <= 50
    text = [cell for cell in cells(path, "markdown") if cell not in exercises]
    assert 550 <= sum(len(source(cell).split()) for cell in text) <= 1200
    shown = [source(cell) for cell in cells(path, "code")]
    assert max(len(text.splitlines()) for text in shown) <= 12  # what a projector shows at once


@each_notebook
def test_claims_are_compared_and_have_a_verdict(path):
    claim = re.compile(r"(?<![.\w])claim\(")
    told = [cell for cell in cells(path, "code") if claim.search(source(cell))]
    tags = [set(cell["metadata"].get("tags", [])) for cell in told]
    assert tags
    for cell, tagged in zip(told, tags, strict=True):
        assert tagged in ({"nbval-check-output"}, {"close-call"})  # within its error: told, not compared
        text = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        assert text.count(" · holds\n") + text.count(" · differs\n") == len(claim.findall(source(cell)))


@each_notebook
def test_links_within_the_repository_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)\s#]+)", source(cell)):
            assert (path.parent / target).exists(), target


def test_the_embedded_weights_are_small_and_known():
    weights = ROOT / "fusedream_nb" / "models" / "stickers" / "weights"
    manifest = json.loads((weights / "manifest.json").read_text("utf-8"))
    there = {p.relative_to(weights).as_posix(): p.stat().st_size for p in weights.rglob("*") if p.is_file()}
    del there["manifest.json"]
    assert there == {name: row["bytes"] for name, row in manifest.items()}
    assert sum(there.values()) <= 32 * 2**20
