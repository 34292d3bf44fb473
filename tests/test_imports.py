"""Imports point down only, and the package itself is light."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import fusedream_nb

PACKAGE = Path(fusedream_nb.__file__).parent
LAYERS = ("models", "method", "records", "notebook", "evaluation", "reproduce", "cli")  # the lowest first


def layer(module: str) -> str | None:
    """Return the layer of a module's dotted name, None for the package's own front door."""
    parts = module.split(".")
    return parts[1] if parts[0] == "fusedream_nb" and len(parts) > 1 and parts[1] in LAYERS else None


def imported(source: str, module: str, *, is_package: bool) -> set[str]:
    """Return the dotted names that a module's source imports, anywhere in it, relative ones resolved."""
    found = set()
    home = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found |= {stem} | {f"{stem}.{alias.name}" for alias in node.names}
    return found


def upward(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Return the imports of a module that reach a layer above its own."""
    own = layer(module)
    above = LAYERS[LAYERS.index(own) + 1 :] if own else ()
    return {name for name in imported(source, module, is_package=is_package) if layer(name) in above}


def named(path):
    """Return the dotted name of a module's file, and whether it is a package's own."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), is_package


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: named(path)[0])
def test_imports_point_down(path):
    module, is_package = named(path)
    assert not upward(path.read_text("utf-8"), module, is_package=is_package)


def test_every_module_has_a_layer():
    homeless = {named(path)[0] for path in MODULES if layer(named(path)[0]) is None}
    assert homeless <= {"fusedream_nb", "fusedream_nb.__main__"}


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from fusedream_nb.notebook import show", "fusedream_nb.method.scores"),
        ("from ..notebook.show import grid", "fusedream_nb.method.scores"),
        ("from .. import notebook", "fusedream_nb.method.scores"),
        ("import fusedream_nb.cli", "fusedream_nb.records.record"),
        ("def f():\n    from ...reproduce import record", "fusedream_nb.models.stickers.world"),
    ],
)
def test_the_walk_sees_an_import_that_points_up(source, module):
    assert upward(source, module)


@pytest.mark.parametrize("source", ["from ..models import load", "from .augment import ALL", "import torch"])
def test_the_walk_lets_imports_down_and_sideways_pass(source):
    assert not upward(source, "fusedream_nb.method.scores")


def test_the_package_imports_nothing_heavy():
    script = "import sys, json, fusedream_nb; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"torch", "torchvision", "ot", "open_clip", "lpips", "numpy", "matplotlib", "IPython", "typer"}
    assert not heavy & set(json.loads(answer.stdout))


def test_every_public_name_can_be_had():
    for name in fusedream_nb.__all__:
        assert getattr(fusedream_nb, name) is not None
    assert set(fusedream_nb.__all__) <= set(dir(fusedream_nb))
    with pytest.raises(AttributeError, match="no_such_name"):
        fusedream_nb.no_such_name  # noqa: B018


def test_the_command_is_there():
    assert callable(importlib.import_module("fusedream_nb.cli").main)
