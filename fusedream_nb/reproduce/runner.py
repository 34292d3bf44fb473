"""Run the notebooks that hold the figures asked for; keep their pictures, claims, seconds and memory.

Every notebook runs in a scratch folder inside the output folder. What it leaves is moved out by renaming,
its ``.json`` last, so that a result that can be read is a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fusedream_nb import __version__
from fusedream_nb.method.budgets import budget, default
from fusedream_nb.models import resolve_device
from fusedream_nb.models.weights import entry
from fusedream_nb.records import png
from fusedream_nb.records.record import hashes
from fusedream_nb.reproduce.pool import FIGURES, Job, run_all
from fusedream_nb.reproduce.report import Result, collect, read


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
    head = model.partition("/")[0]
    if head == "stickers" or not Path(model).exists():  # as ``load`` looks for it
        entry(head).require()
    else:
        model = str(Path(model).resolve())  # notebooks run elsewhere
    device = device or os.environ.get("FUSEDREAM_DEVICE") or "auto"
    if device not in ("auto", "cpu"):  # these are always there; the others take torch to say
        resolve_device(device)
    return Settings(model, budget(size or default(model, device)).name, device, seed)


def run(
    paths: Sequence[Path],
    chosen: Settings,
    out: Path,
    *,
    jobs: int = 1,
    report: Callable[[str], object] = lambda text: None,
) -> Generator[Result, None, None]:
    """Run notebooks, ``jobs`` at a time, and yield the result of each as it comes, failed or not.

    One whose result is in ``out`` already, made by the same, is not run again. Closing the iterator, or
    Ctrl-C, ends what is running and its kernels.
    """
    _tidy(out)
    waiting = []
    for path in paths:
        made_by, old = _made_by(path, chosen), read(out / f"{path.stem}.json")
        if old and old.made_by == made_by and old.is_whole(out):
            report(f"{path.stem}: done before")
            yield old
        else:
            waiting.append(_job(path, made_by, chosen, out, jobs))
    try:
        with closing(run_all(waiting, jobs)) as states:
            for job, code in states:
                if code is None:
                    report(f"{job.notebook.stem}: running")
                else:
                    yield collect(job.notebook.stem, job.made_by, job.folder, code, out)
    finally:
        for job in waiting:
            shutil.rmtree(job.folder, ignore_errors=True)


def _made_by(path: Path, chosen: Settings) -> dict[str, Any]:
    return {
        **asdict(chosen),
        "notebook": path.name,
        "notebook_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "weights": hashes(chosen.model),
        "package": __version__,
        "torch": version("torch"),
    }


def _job(path: Path, made_by: dict[str, Any], chosen: Settings, out: Path, jobs: int) -> Job:
    """Return a notebook's job in a scratch folder of its own; several at a time share the cores."""
    folder = out.resolve() / f".{path.stem}.{os.getpid()}.part"
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    record = {**made_by, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    environment = {
        **({} if jobs == 1 or "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": threads}),
        "FUSEDREAM_MODEL": chosen.model,
        "FUSEDREAM_BUDGET": chosen.budget,
        "FUSEDREAM_DEVICE": chosen.device,
        "FUSEDREAM_FIGURES": str(folder / FIGURES),
        "FUSEDREAM_CLAIMS": str(folder / "claims.jsonl"),
        "FUSEDREAM_RECORD": json.dumps(record),
        "JUPYTER_PREFER_ENV_PATH": "1",  # not another environment's kernel of the same name
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    return Job(path.resolve(), folder, chosen.parameters(), environment, made_by)


def _tidy(out: Path) -> None:
    """Make the folder, and remove the scratch folders of processes that are no more."""
    import psutil

    png.check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    for scratch in out.glob(".*.part"):
        number = scratch.name.split(".")[-2]
        if scratch.is_dir() and number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(scratch, ignore_errors=True)
