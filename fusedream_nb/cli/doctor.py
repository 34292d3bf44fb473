"""``fusedream-nb doctor``: whether this machine can make pictures, and what to do where it cannot."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import cache_from_source
from pathlib import Path
from typing import Literal

import typer

from fusedream_nb.cli.generate_command import Json
from fusedream_nb.cli.terminal import table

GB = 1e9
MEMORY, DISK = 1.2 * GB, 0.5 * GB  # what the sticker world needs free
LIBRARIES = {  # module → what pip calls it
    "torch": "torch",
    "torchvision": "torchvision",
    "open_clip": "open_clip_torch",
    "lpips": "lpips",
}
NOTEBOOKS = ("jupyterlab", "ipykernel", "ipywidgets")
COMPILED = (
    "Unset PYTHONDONTWRITEBYTECODE, or set PYTHONPYCACHEPREFIX to a folder that can be written to: "
    "each start takes 20 s less."
)


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found and, unless it is ok, what to do."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def doctor(as_json: Json = False) -> None:
    """Check Python, libraries, devices, memory, disk, weights and what the notebooks need."""
    checks = [asdict(check) for check in examine()]
    if as_json:
        print(json.dumps(checks, indent=1))
    else:
        table([[check[name] for name in ("status", "name", "found", "advice")] for check in checks], whole=2)
    if any(check["status"] == "fail" for check in checks):
        raise typer.Exit(1)


def examine() -> Iterator[Check]:
    """Look at Python, libraries, devices, memory, disk, weights and what the notebooks need."""
    new = sys.version_info >= (3, 11)
    yield _check("Python", platform.python_version(), new, "Install Python 3.11 or newer.", "fail")
    libraries = [_library(module, package) for module, package in LIBRARIES.items()]
    yield from libraries
    if libraries[0].status == "ok":
        yield from _torch()
    free, room = _memory(), shutil.disk_usage(os.curdir).free
    advice = "Close other programs: a picture of the sticker world takes about a gigabyte."
    yield _check("memory", f"{free / GB:.1f} GB free", free >= MEMORY, advice)
    advice = "Make room, or write elsewhere with --out."
    yield _check("disk", f"{room / GB:.1f} GB free here", room >= DISK, advice)
    yield from _weights()
    yield from _banks()
    yield from map(_notebook, NOTEBOOKS)


def _check(name: str, found: str, good: bool, advice: str, bad: Literal["warn", "fail"] = "warn") -> Check:
    return Check(name, "ok", found) if good else Check(name, bad, found, advice)


def _library(module: str, package: str) -> Check:
    try:
        import_module(module)
        return Check(package, "ok", version(package))
    except Exception as error:  # a torchvision of another torch raises RuntimeError, not ImportError
        packages = f"torch {package}" if "torch" in module else package
        return Check(package, "fail", str(error), f"python -m pip install --upgrade {packages}")


def _torch() -> Iterator[Check]:
    """Check that Python keeps what it compiles of libraries, and that each device computes."""
    import torch

    kept = Path(cache_from_source(torch.__file__)).exists()
    yield _check("bytecode", "kept between starts" if kept else "compiled again each time", kept, COMPILED)
    found = {"cpu": f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        found["mps"] = "Apple's GPU"
    for name, what in found.items():
        try:
            torch.ones(2, 2, device=name).mm(torch.ones(2, 2, device=name)).cpu()
            yield Check(name, "ok", what)
        except Exception as error:
            yield Check(name, "fail", str(error), f"Repair its driver, or take another --device than {name}.")


def _memory() -> float:
    """Return the bytes that are free, and that a container, such as Binder's, may still take (cgroup 2)."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        return min(free, limit - used)
    except (OSError, ValueError):
        return free


def _weights() -> Iterator[Check]:
    """Check the hashes of the embedded models, and of the others that are here."""
    from fusedream_nb.models.weights import catalogue

    for row in catalogue():
        embedded = row.name == "stickers"
        if row.here or embedded:
            problems = row.problems()
            again = "Install fusedream-nb again." if embedded else "Fetch the file again."
            yield _check(row.name, " ".join(problems) or "weights are here", not problems, again, "fail")


def _banks() -> Iterator[Check]:
    """List the starts that are a lookup."""
    from fusedream_nb.method.bank import banks

    for row in banks():
        yield Check("start's bank", "ok", f"{row['of']}: seed {row['seed']}, M = {row['M']:,}")


def _notebook(package: str) -> Check:
    try:
        return Check(package, "ok", version(package))
    except PackageNotFoundError:
        return Check(package, "warn", "not installed", f"For the notebooks: python -m pip install {package}")
