"""One notebook run by papermill, in a process of its own: ``python -m fusedream_nb.reproduce.execute``.

The process gets a folder with ``job.json`` (notebook, parameters) and leaves there ``notebook.ipynb``
and ``outcome.json`` (seconds, peak memory, failure). It ends, and its kernel with it, as soon as its
standard input is closed: when whoever started it says so, or is no more.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

EXECUTED = "notebook.ipynb"
STARTS = 3  # a kernel picks its ports before it binds them: of two that begin together, one may lose a port


def main() -> int:
    """Run the job in the folder named on the command line; return 0, or 130 if it was stopped."""
    threading.Thread(target=_watch, daemon=True).start()
    folder = Path(sys.argv[1])
    try:
        outcome = _run(folder, **json.loads((folder / "job.json").read_text("utf-8")))
    except KeyboardInterrupt:
        return 130
    (folder / "outcome.json").write_text(json.dumps(outcome), "utf-8")
    return 0


def _watch() -> None:
    """Wait until standard input is closed, then interrupt the main thread."""
    while os.read(0, 64):
        pass
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def _run(folder: Path, notebook: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Execute a notebook; tell its seconds, its kernel's peak memory in bytes, and how it failed."""
    from papermill import execute_notebook

    try:
        from fusedream_nb.reproduce.kernels import WakefulManager

        wakeful = {"kernel_manager_class": WakefulManager}
    except ImportError:  # jupyter_client before 7 has other channels
        wakeful = {}
    for start in range(STARTS):
        began, failure = time.monotonic(), None
        try:
            execute_notebook(
                notebook,
                folder / EXECUTED,
                parameters,
                kernel_name="python3",  # of this environment, whatever the notebook was saved with
                language="python",
                cwd=folder,
                progress_bar=False,
                start_timeout=30 * (start + 1),
                shutdown_kernel="immediate",  # a kernel that computes would take its time
                **wakeful,
            )
        except Exception as error:
            failure = _failure(folder / EXECUTED, error)
            if isinstance(error, RuntimeError) and not failure["source"]:
                continue  # the kernel never came up
        break
    return {"seconds": round(time.monotonic() - began, 1), "peak": _peak(), "failure": failure}


def _failure(path: Path, error: Exception) -> dict[str, str]:
    """Return the failing cell's name and source, the error in a line, and the traceback."""
    from papermill.exceptions import PapermillExecutionError, strip_color

    cell = _last_run(path)
    if isinstance(error, PapermillExecutionError):  # what was raised inside the kernel
        line, trace = f"{error.ename}: {error.evalue}", "\n".join(error.traceback)
    else:  # the kernel died, or this is no notebook
        line, trace = f"{type(error).__name__}: {error}", ""
    return {
        "cell": cell.get("id", ""),
        "source": cell.get("source", ""),
        "error": " ".join(strip_color(line).split()),
        "traceback": strip_color(trace),
    }


def _last_run(path: Path) -> dict[str, Any]:
    """Return the last cell that was begun, or an empty one."""
    import nbformat

    cells = nbformat.read(path, as_version=4).cells if path.exists() else []
    return next((c for c in reversed(cells) if c.metadata.get("papermill", {}).get("start_time")), {})


def _peak() -> int | None:
    """Return the most memory that the kernel held, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    sys.exit(main())
