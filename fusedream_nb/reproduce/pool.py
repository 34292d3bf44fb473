"""Notebooks run by papermill, several at a time, each in a process of its own.

A process ends when whoever started it says so or is no more, and its kernel ends with it: Jupyter's kernels
watch their parent. An executor of :mod:`concurrent.futures` would give up all notebooks where one process
dies, so the processes are waited for here.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

EXECUTED, OUTCOME, LOG, FIGURES = "notebook.ipynb", "outcome.json", "log.txt", "figures"  # what it leaves
STARTS = 3  # a kernel picks its ports before it binds them: of two that begin together, one may lose a port
PATIENCE = 20.0  # seconds until a process that should end is killed


@dataclass(frozen=True)
class Job:
    """A notebook to run in a scratch ``folder``, with values for its parameters and its kernel's environment.

    ``made_by`` is what its result is made by.
    """

    notebook: Path
    folder: Path
    parameters: dict[str, Any]
    environment: dict[str, str]
    made_by: dict[str, Any]


def run_all(jobs: Sequence[Job], at_once: int) -> Generator[tuple[Job, int | None], None, None]:
    """Run notebooks, ``at_once`` at a time; yield each as it begins, and again with its exit code as it ends.

    Closing the iterator ends what is running.
    """
    spawn, waiting = multiprocessing.get_context("spawn"), list(jobs)
    running: dict[Any, tuple[Any, Job]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                process = spawn.Process(target=_execute, args=(job,), daemon=True)
                process.start()
                running[process.sentinel] = process, job
                yield job, None
            for sentinel in wait(list(running)):
                process, job = running.pop(sentinel)
                process.join()
                yield job, process.exitcode
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join(PATIENCE)
            process.kill()
            process.join()


def _execute(job: Job) -> None:
    """Execute a notebook in this process; leave it, its log and its outcome in the job's folder."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an exception: papermill ends the kernel
    threading.Thread(target=_end_with_parent, daemon=True).start()
    (job.folder / FIGURES).mkdir(parents=True)
    with (job.folder / LOG).open("wb") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    os.environ.update(job.environment)
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
                job.notebook,
                job.folder / EXECUTED,
                job.parameters,
                kernel_name="python3",  # of this environment, whatever the notebook was saved with
                language="python",
                cwd=job.folder,
                progress_bar=False,
                start_timeout=30 * (start + 1),
                shutdown_kernel="immediate",  # a kernel that computes would take its time
                **wakeful,
            )
        except Exception as error:
            failure = _failure(job.folder / EXECUTED, error)
            if isinstance(error, RuntimeError) and not failure["source"]:
                continue  # the kernel never came up
        break
    outcome = {"seconds": round(time.monotonic() - began, 1), "peak": _peak(), "failure": failure}
    (job.folder / OUTCOME).write_text(json.dumps(outcome), "utf-8")


def _end_with_parent() -> None:
    """Wait until the parent is no more, then end."""
    if parent := multiprocessing.parent_process():
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(1)


def _failure(path: Path, error: Exception) -> dict[str, str]:
    """Return the failing cell's name and source, the error in a line, and the traceback."""
    import nbformat
    from papermill.exceptions import PapermillExecutionError, strip_color

    cells = nbformat.read(path, as_version=4).cells if path.exists() else []
    begun = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    cell = begun[-1] if begun else {}
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


def _peak() -> int | None:
    """Return the most memory that the kernel held, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
