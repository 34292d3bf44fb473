"""Settings that every test and every notebook run by nbval share."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from importlib.util import cache_from_source, find_spec
from pathlib import Path

import pytest

# The kernels that nbval starts inherit these: the same work on every machine, whatever its owner has set.
os.environ["FUSEDREAM_BUDGET"] = "smoke"
os.environ["FUSEDREAM_DEVICE"] = "cpu"
os.environ["FUSEDREAM_OFFLINE"] = "1"  # what is missing is told, not fetched
os.environ.pop("FUSEDREAM_MODEL", None)
os.environ.pop("FUSEDREAM_CLAIMS", None)
os.environ["OMP_NUM_THREADS"] = "1"  # one thread a process: the same bits however many cores there are
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # debugpy's advice in every kernel's log
if "PYTEST_XDIST_WORKER" in os.environ:  # workers ignore Ctrl-C, and so would what a test starts
    signal.signal(signal.SIGINT, signal.default_int_handler)


def keep_bytecode() -> None:
    """Let kernels and commands share what Python compiles of the libraries: 20 s each where none keeps it."""
    torch = find_spec("torch")
    if not torch or not torch.origin or Path(cache_from_source(torch.origin)).exists():
        return
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None) and "PYTHONPYCACHEPREFIX" not in os.environ:
        folder = tempfile.mkdtemp(prefix="bytecode-")
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = folder
        sys.dont_write_bytecode = False
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


keep_bytecode()


def pytest_xdist_auto_num_workers() -> int:
    """Say how many processes share the tests: one a core, of which four are enough; 2.5 GB each."""
    import psutil

    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(4, cores, int(psutil.virtual_memory().available / 2.5e9)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked ``cuda`` where no CUDA GPU can be seen."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU here"))
