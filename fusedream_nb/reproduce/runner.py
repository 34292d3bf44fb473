"""Run the notebooks that hold the figures asked for; keep their pictures, claims, seconds and memory.

Every notebook runs in a process of its own (:mod:`fusedream_nb.reproduce.execute`) and in a scratch
folder inside the output folder. What it leaves is moved out by renaming, its ``.json`` last, so that a
result that can be read is a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fusedream_nb import __version__
from fusedream_nb.method.budgets import budget
from fusedream_nb.models import resolve_device
from fusedream_nb.models.weights import entry
from fusedream_nb.records import png
from fusedream_nb.records.record import hashes
from fusedream_nb.reproduce import execute, figures
from fusedream_nb.reproduce.results import Result, collect, read

POLL, PATIENCE = 0.1, 20.0  # seconds between two looks at a process, and until one that stops is killed


@dataclass(frozen=True)
class Settings:
    """How notebooks are run: their parameters; without a seed each takes its own."""

    model: str
    budget: str
    device: str
    seed: int | None = None

    def parameters(self) -> dict[str, Any]:
        """Return what goes into a notebook's cell tagged ``parameters``."""
        return {name.upper(): value for name, value in asdict(self).items() if value is not None}


def settings(
    model: str | None = None, size: str | None = None, device: str | None = None, seed: int | None = None
) -> Settings:
    """Return settings, None read from the FUSEDREAM_ variables as ``load`` and ``budget`` do.

    Raises ValueError for an unknown name, and FileNotFoundError where the model's weights are missing.
    """
    model = model or os.environ.get("FUSEDREAM_MODEL") or "stickers"
    if not Path(model).exists() or model.startswith("stickers"):
        entry(model.partition("/")[0]).require()
    else:
        model = str(Path(model).resolve())  # notebooks run elsewhere
    device = device or os.environ.get("FUSEDREAM_DEVICE") or "auto"
    if device not in ("auto", "cpu"):  # these are always there; the others take torch to tell
        resolve_device(device)
    return Settings(model, budget(size).name, device, seed)


def notebooks(wanted: Sequence[figures.PaperFigure], *, every: bool = False) -> list[Path]:
    """Return the files of the notebooks that hold some figures; with ``every``, of those there are.

    Raises FileNotFoundError for a figure without its notebook.
    """
    found = {figure.id: figures.notebook(figure) for figure in wanted}
    if missing := [figure for figure in wanted if found[figure.id] is None]:
        first, where = missing[0], figures.folder()
        if not every or len(missing) == len(wanted):
            raise FileNotFoundError(
                f"{first.id} wants notebook {first.notebook}, which is not in {where}; "
                "set FUSEDREAM_NOTEBOOKS to the folder of the repository's notebooks."
            )
    return sorted({path for path in found.values() if path is not None})


def run(
    paths: Sequence[Path],
    chosen: Settings,
    out: Path,
    *,
    jobs: int = 1,
    tell: Callable[[str], object] = lambda text: None,
) -> Generator[Result, None, None]:
    """Run notebooks, ``jobs`` at a time, and yield the result of each as it comes, failed or not.

    One whose result is in ``out`` already, made by the same, is not run again. Closing the iterator, or
    Ctrl-C, ends what is running and its kernels. Raises ValueError where papermill is not installed.
    """
    if not (find_spec("papermill") and find_spec("ipykernel")):
        raise ValueError("Running notebooks wants two packages: python -m pip install papermill ipykernel")
    _tidy(out)
    waiting: list[tuple[Path, dict[str, Any]]] = []
    running: list[_Run] = []
    for path in paths:
        made_by, old = _made_by(path, chosen), read(out / f"{path.stem}.json")
        if old and old.made_by == made_by and old.is_whole(out):
            tell(f"{path.stem}: done before")
            yield old
        else:
            waiting.append((path, made_by))
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(*waiting.pop(0), chosen, out, jobs))
                tell(f"{running[-1].name}: running")
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                yield collect(one.name, one.made_by, one.folder, one.process.returncode, out)
            time.sleep(POLL)
    finally:
        _stop(running)


@dataclass(frozen=True)
class _Run:
    """A notebook that is running."""

    name: str
    made_by: dict[str, Any]
    folder: Path
    process: subprocess.Popen[bytes]


def _made_by(path: Path, chosen: Settings) -> dict[str, Any]:
    return {
        **asdict(chosen),
        "notebook": path.name,
        "notebook_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "weights": hashes(chosen.model),
        "package": __version__,
        "torch": version("torch"),
    }


def _start(path: Path, made_by: dict[str, Any], chosen: Settings, out: Path, jobs: int) -> _Run:
    """Start a notebook's process in a session of its own, so that a terminal's Ctrl-C is ours to tell."""
    folder = out.resolve() / f".{path.stem}.{os.getpid()}.part"
    (folder / "figures").mkdir(parents=True)
    job = {"notebook": str(path.resolve()), "parameters": chosen.parameters()}
    (folder / "job.json").write_text(json.dumps(job), "utf-8")
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", execute.__name__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=_environment(made_by, chosen, folder, jobs),
            start_new_session=True,
        )
    return _Run(path.stem, made_by, folder, process)


def _environment(made_by: dict[str, Any], chosen: Settings, folder: Path, jobs: int) -> dict[str, str]:
    """Return the environment of a kernel; several at a time share the cores."""
    threads = {} if jobs == 1 else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    record = {**made_by, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    return {
        **threads,
        **os.environ,
        "FUSEDREAM_MODEL": chosen.model,
        "FUSEDREAM_BUDGET": chosen.budget,
        "FUSEDREAM_DEVICE": chosen.device,
        "FUSEDREAM_FIGURES": str(folder / "figures"),
        "FUSEDREAM_CLAIMS": str(folder / "claims.jsonl"),
        "FUSEDREAM_RECORD": json.dumps(record),
        "JUPYTER_PREFER_ENV_PATH": "1",  # not another environment's kernel of the same name
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _stop(running: Sequence[_Run]) -> None:
    """End processes by closing their standard input, and remove what they leave."""
    for one in running:
        if one.process.stdin:
            one.process.stdin.close()
    for one in running:
        try:
            one.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        shutil.rmtree(one.folder, ignore_errors=True)


def _tidy(out: Path) -> None:
    """Make the folder, and remove the scratch folders of processes that are no more."""
    import psutil

    png.check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    for scratch in out.glob(".*.part"):
        number = scratch.name.split(".")[-2]
        if scratch.is_dir() and number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(scratch, ignore_errors=True)
