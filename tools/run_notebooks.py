"""Run notebooks in place and keep only what a reader needs of the result.

    python tools/run_notebooks.py                      # all of them
    python tools/run_notebooks.py notebooks/00*.ipynb  # some
    python tools/run_notebooks.py --strip              # run nothing, only tidy what is there

What goes: widget state (GitHub refuses half of one), times, the kernel's version.
Settings come from FUSEDREAM_BUDGET, FUSEDREAM_MODEL and FUSEDREAM_DEVICE, as in the notebooks.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nbformat

KEPT = ("tags", "wrong")  # of a cell's metadata; the second is an exercise's wrong answer
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def run(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Execute every cell in a fresh kernel of this environment; a failing cell raises."""
    from nbclient import NotebookClient

    from fusedream_nb.reproduce.kernels import WakefulManager

    settings = {"timeout": 3600, "record_timing": False, "kernel_manager_class": WakefulManager}
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **settings).execute()


def strip(notebook: nbformat.NotebookNode) -> None:
    """Remove what differs from machine to machine and from run to run, but leave the outputs."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {name: cell.metadata[name] for name in KEPT if name in cell.metadata}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


def main() -> None:
    """Read the command line and go through the notebooks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(NOTEBOOKS.glob("*.ipynb")))
    parser.add_argument("--strip", action="store_true", help="run nothing")
    given = parser.parse_args()
    for path in given.notebooks:
        notebook, began = nbformat.read(path, as_version=4), time.monotonic()
        if not given.strip:
            run(notebook, path.resolve().parent)
        strip(notebook)
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - began:.0f} s, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
