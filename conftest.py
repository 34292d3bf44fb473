"""Settings that every test and every notebook run by nbval share."""

from __future__ import annotations

import os

import pytest

# The kernels that nbval starts inherit these: the same work on every machine, whatever its owner has set.
os.environ["FUSEDREAM_BUDGET"] = "quick"
os.environ["FUSEDREAM_DEVICE"] = "cpu"
os.environ.pop("FUSEDREAM_MODEL", None)
os.environ.pop("FUSEDREAM_CLAIMS", None)
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # debugpy's advice in every kernel's log


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked ``cuda`` where no CUDA GPU can be seen."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU here"))
