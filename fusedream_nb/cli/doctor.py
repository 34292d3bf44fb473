"""``fusedream-nb doctor``: whether this machine can make pictures, and what to do where it cannot."""

from __future__ import annotations

import ast
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import cache_from_source
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

import fusedream_nb as fd
from fusedream_nb.cli.terminal import Json, table

Row = dict[str, str]
GB = 1e9
MEMORY, DISK = 1.2 * GB, 0.5 * GB  # what the sticker world needs free
KERNEL = 1.5 * GB  # the most that a notebook's kernel takes
LIBRARIES = {"torch": "torch", "torchvision": "torchvision", "open_clip_torch": "open_clip", "lpips": "lpips"}
NOTEBOOKS = ("jupyterlab", "ipykernel", "ipywidgets")


def doctor(
    workshop: Annotated[
        bool, Option("--workshop", help="Also the notebooks' imports, a picture, memory for PEOPLE.")
    ] = False,
    people: Annotated[int, Option(min=1, help="How many share this machine.")] = 1,
    as_json: Json = False,
) -> None:
    """Check Python, libraries, devices, memory, disk, weights and what the notebooks need."""
    rows = [*examine(), *(prepare(people) if workshop else ())]
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        table([[row[name] for name in ("status", "name", "found", "advice")] for row in rows], whole=2)
    if any(row["status"] == "fail" for row in rows):
        raise typer.Exit(1)


def examine() -> Iterator[Row]:
    """Look at everything; yield a row for each thing, with advice unless it is ok."""
    new = sys.version_info >= (3, 11)
    yield _row("Python", platform.python_version(), new, "Install Python 3.11 or newer.", "fail")
    libraries = [_library(package, module) for package, module in LIBRARIES.items()]
    yield from libraries
    if libraries[0]["status"] == "ok":
        yield from _torch()
    free, room = _memory(), shutil.disk_usage(os.curdir).free
    advice = "Close other programs: a picture of the sticker world takes about a gigabyte."
    yield _row("memory", f"{free / GB:.1f} GB free", free >= MEMORY, advice)
    advice = "Make room, or write elsewhere with --out."
    yield _row("disk", f"{room / GB:.1f} GB free here", room >= DISK, advice)
    yield from _weights()
    for package in NOTEBOOKS:
        try:
            yield _row(package, version(package))
        except PackageNotFoundError:
            advice = f"For the notebooks: python -m pip install {package}"
            yield _row(package, "not installed", False, advice)


def prepare(people: int) -> Iterator[Row]:
    """Look at what a workshop needs: every notebook's imports, a picture in a minute, memory for all."""
    from fusedream_nb.reproduce.figures import notebooks

    for path in (paths := notebooks(["all"])):
        cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
        parts = [node for cell in cells for node in ast.parse("".join(cell["source"])).body]
        imports = [node for node in parts if isinstance(node, ast.Import | ast.ImportFrom)]
        try:
            exec(compile(ast.Module(list(imports), []), path.name, "exec"), {})
        except ImportError as error:
            yield _row(path.stem, str(error), False, "python -m pip install -e '.[notebook,test]'", "fail")
    yield _row("notebooks", f"{len(paths)}, imports tried")
    began = time.monotonic()
    *_, last = fd.fusedream("a photo of a blue dog", fd.load())
    seconds = time.monotonic() - began
    yield _row(
        "a picture", f"{seconds:.0f} s, {last.total} steps", seconds < 60, "Use FUSEDREAM_BUDGET=smoke."
    )
    free, need = _memory(), people * KERNEL
    few = f"It is enough for {free // KERNEL:.0f}; the others work in pairs, in Colab, or read the book."
    yield _row(f"{people} people", f"{free / GB:.1f} GB free of {need / GB:.1f} needed", free >= need, few)


def _row(name: str, found: str, good: bool = True, advice: str = "", bad: str = "warn") -> Row:
    status, advice = ("ok", "") if good else (bad, advice)
    return {"name": name, "status": status, "found": found, "advice": advice}


def _library(package: str, module: str) -> Row:
    try:
        import_module(module)
        return _row(package, version(package))
    except Exception as error:  # a torchvision of another torch raises RuntimeError, not ImportError
        packages = f"torch {package}" if "torch" in module else package
        return _row(package, str(error), False, f"python -m pip install --upgrade {packages}", "fail")


def _torch() -> Iterator[Row]:
    """Check that Python keeps what it compiles of libraries, and that each device computes."""
    import torch

    kept = Path(cache_from_source(torch.__file__)).exists()
    advice = "Unset PYTHONDONTWRITEBYTECODE, or set PYTHONPYCACHEPREFIX to a folder: starts take 20 s less."
    yield _row("bytecode", "kept between starts" if kept else "compiled again each time", kept, advice)
    found = {"cpu": f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        found["mps"] = "Apple's GPU"
    for name, what in found.items():
        try:
            torch.ones(2, 2, device=name).mm(torch.ones(2, 2, device=name)).cpu()
            yield _row(name, what)
        except Exception as error:
            advice = f"Repair its driver, or take another --device than {name}."
            yield _row(name, str(error), False, advice, "fail")


def _memory() -> float:
    """Return the bytes that are free, and that a container, such as Binder's, may still take (cgroup 2)."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        return min(free, limit - used)
    except (OSError, ValueError):
        return free


def _weights() -> Iterator[Row]:
    """Check the hashes of the models that are here, the embedded ones always; list the starts' banks."""
    from fusedream_nb.method.bank import banks
    from fusedream_nb.models.weights import catalogue

    for row in catalogue():
        embedded = row.name == "stickers"
        if row.here or embedded:
            problems = row.problems()
            again = "Install fusedream-nb again." if embedded else "Fetch the file again."
            yield _row(row.name, " ".join(problems) or "weights are here", not problems, again, "fail")
    for bank in banks():
        yield _row("start's bank", f"{bank['of']}: seed {bank['seed']}, M = {bank['M']:,}")
