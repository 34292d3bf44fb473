"""Students' copies run from top to bottom: what is still to write is said, and stops nothing."""

from __future__ import annotations

import nbformat
import pytest
import workshop_build as build
from nbclient import NotebookClient

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("path", build.notebooks(), ids=lambda path: path.stem)
def test_a_students_copy_runs_through(path, tmp_path):
    source = nbformat.read(path, as_version=4)
    copy = build.student(source)
    NotebookClient(copy, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    checks = [cell for cell in copy.cells if build.tagged(cell, "check")]
    told = ["".join(output.get("text", "") for output in cell.outputs) for cell in checks]
    assert len(told) == len(list(build.exercises(source))) >= 2
    assert all(text.endswith(" · still to write.\n") for text in told)
