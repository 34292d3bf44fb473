"""``fusedream-nb doctor``: whether this machine can make pictures, and what to do where it cannot."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
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
    "pytorch_pretrained_biggan": "pytorch-pretrained-biggan",
    "lpips": "lpips",
}
NOTEBOOKS = ("jupyterlab", "ipykernel", "ipywidgets")


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


def examine() -> list[Check]:
    """Look at Python, libraries, devices, memory, disk, weights and what the notebooks need."""
    libraries = [_library(module, package) for module, package in LIBRARIES.items()]
    devices = [_bytecode(), *_devices()] if libraries[0].status == "ok" else []
    notebooks = [_notebook(package) for package in NOTEBOOKS]
    return [_python(), *libraries, *devices, _memory(), _disk(), *_weights(), *_banks(), *notebooks]


def _python() -> Check:
    new_enough = sys.version_info >= (3, 11)
    advice = "" if new_enough else "Install Python 3.11 or newer."
    return Check("Python", "ok" if new_enough else "fail", platform.python_version(), advice)


def _library(module: str, package: str) -> Check:
    try:
        import_module(module)
        return Check(package, "ok", version(package))
    except Exception as error:  # a torchvision of another torch raises RuntimeError, not ImportError
        advice = f"python -m pip install --upgrade torch {package}" if "torch" in module else ""
        return Check(package, "fail", str(error), advice or f"python -m pip install --upgrade {package}")


def _bytecode() -> Check:
    """Check that Python keeps what it compiles: of the libraries' sources that is 20 s at every start."""
    import torch

    if Path(cache_from_source(torch.__file__)).exists():
        return Check("bytecode", "ok", "kept between starts")
    advice = (
        "Unset PYTHONDONTWRITEBYTECODE, or set PYTHONPYCACHEPREFIX to a folder that can be written to: "
        "each start takes 20 s less."
    )
    return Check("bytecode", "warn", "compiled again at every start", advice)


def _devices() -> list[Check]:
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [_device(name) for name, here in there.items() if here]


def _device(name: str) -> Check:
    import torch

    threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    found = {"cpu": threads, "mps": "Apple's GPU"}
    try:
        torch.ones(2, 2, device=name).mm(torch.ones(2, 2, device=name)).cpu()
        return Check(name, "ok", found.get(name) or torch.cuda.get_device_name())
    except Exception as error:
        return Check(name, "fail", str(error), f"Repair its driver, or take another --device than {name}.")


def _memory() -> Check:
    import psutil

    free = min(psutil.virtual_memory().available, _container_memory())
    short = free < MEMORY
    advice = "Close other programs: a picture of the sticker world takes about a gigabyte." if short else ""
    return Check("memory", "warn" if short else "ok", f"{free / GB:.1f} GB free", advice)


def _container_memory() -> float:
    """Return what a container, such as Binder's, may still take (Linux, cgroup 2), else infinity."""
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        return limit - used
    except (OSError, ValueError):
        return float("inf")


def _disk() -> Check:
    free = shutil.disk_usage(os.curdir).free
    short = free < DISK
    advice = "Make room, or write elsewhere with --out." if short else ""
    return Check("disk", "warn" if short else "ok", f"{free / GB:.1f} GB free here", advice)


def _weights() -> list[Check]:
    """Check the hashes of the embedded models, and of the others that are here."""
    from fusedream_nb.models.weights import catalogue

    checks = []
    for row in catalogue():
        problems = row.problems() if row.here or row.name == "stickers" else []
        if problems:
            again = "Install fusedream-nb again." if row.name == "stickers" else "Fetch the file again."
            checks.append(Check(row.name, "fail", " ".join(problems), again))
        elif row.here:
            checks.append(Check(row.name, "ok", "weights are here"))
    return checks


def _banks() -> list[Check]:
    """List the starts that are a lookup."""
    from fusedream_nb.method.bank import banks

    return [
        Check(
            "start's bank",
            "ok",
            f"{row['of']}: seed {row['seed']}, M = {row['M']:,}, {row['bytes'] / 1e6:.1f} MB",
        )
        for row in banks()
    ]


def _notebook(package: str) -> Check:
    try:
        return Check(package, "ok", version(package))
    except PackageNotFoundError:
        return Check(package, "warn", "not installed", f"For the notebooks: python -m pip install {package}")
