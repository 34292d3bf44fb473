"""What one ``generate`` was asked for, kept beside its pictures until they are finished."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import png
from .checkpoint import EVERY, checkpointed
from .record import describe, save

if TYPE_CHECKING:
    from fusedream_nb.method.budgets import Budget
    from fusedream_nb.method.optimise import Step
    from fusedream_nb.method.steer import Steerable
    from fusedream_nb.models import Models

AT_ONCE = 4  # pictures in one batch: more take more memory and, on a CPU, hardly less time
TOLD = ("prompt", "seed", "score", "judge_score", "seconds", "steps", "steps_done")  # of each picture
UNFINISHED = ".unfinished-"
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Pictures of ``pairs`` of prompt and seed, ``done`` batches of them finished; a Budget as ``sizes``."""

    pairs: list[tuple[str, int]]
    model: str
    device: str
    sizes: dict[str, Any]
    threads: int
    done: int = 0

    @property
    def batches(self) -> list[list[tuple[str, int]]]:
        """The pairs that are drawn together."""
        return [self.pairs[i : i + AT_ONCE] for i in range(0, len(self.pairs), AT_ONCE)]

    def folder(self, out: Path) -> Path:
        """Return where its state is kept, in the folder of its pictures: the same for the same job."""
        text = json.dumps(asdict(replace(self, done=0)))
        return out / f"{UNFINISHED}{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def keep(self, out: Path) -> None:
        """Write it down, whole or not at all; raises OSError where that cannot be."""
        folder = self.folder(out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            png.write({folder / "job.json": json.dumps(asdict(self)).encode()})
        except OSError as error:
            raise png.cannot_write(folder, error) from error

    def forget(self, out: Path) -> None:
        """Remove what was kept, and the folder of its pictures if it is empty."""
        shutil.rmtree(self.folder(out), ignore_errors=True)
        with suppress(OSError):
            out.rmdir()


def job(pairs: list[tuple[str, int]], model: str | None, device: str | None, sizes: Budget) -> Job:
    """Return a new job, on a device and with the threads that are here now; raises what ``load`` does."""
    import torch

    from fusedream_nb.models import resolve_device

    model = model or os.environ.get("FUSEDREAM_MODEL") or "stickers"
    return Job(pairs, model, str(resolve_device(device)), asdict(sizes), torch.get_num_threads())


def unfinished(out: Path) -> list[Job]:
    """Return the jobs that a folder of pictures holds; ValueError where there is none."""
    found = []
    for path in sorted(out.glob(f"{UNFINISHED}*/job.json")):
        values = json.loads(path.read_text("utf-8"))
        found.append(Job(**{**values, "pairs": [(prompt, seed) for prompt, seed in values["pairs"]]}))
    if not found:
        raise ValueError(
            f"Nothing unfinished is in {out}; --resume takes the --out of a run that was stopped."
        )
    return found


def draw(
    job: Job,
    models: Models,
    out: Path,
    rows: list[Row],
    *,
    watch: Callable[[Sequence[str]], Callable[[Step], object]],
    every: float = EVERY,
    knobs: dict[str, Any] | None = None,
) -> None:
    """Draw what is left of a job, and add a row for each picture that is saved.

    ``watch`` is told each batch's prompts, and what it returns is shown each step. ``knobs`` are turned
    after the first of these. At Ctrl-C the best so far is saved, and the job stays to be resumed.
    """
    job.keep(out)
    try:
        with _threads(job.threads):
            for number, batch in list(enumerate(job.batches))[job.done :]:
                show = watch([prompt for prompt, _ in batch])
                _draw(job, number, batch, models, out, rows, show, every, knobs or {})
                job = replace(job, done=number + 1)
                job.keep(out)
    except KeyboardInterrupt:
        if not job.done and not list(job.folder(out).glob("batch-*")):
            job.forget(out)
        raise
    job.forget(out)


def _draw(
    job: Job,
    number: int,
    batch: list[tuple[str, int]],
    models: Models,
    out: Path,
    rows: list[Row],
    watch: Callable[[Step], object],
    every: float,
    knobs: dict[str, Any],
) -> None:
    from fusedream_nb.method.budgets import Budget
    from fusedream_nb.method.fuse import fusedream

    prompts, seeds = [prompt for prompt, _ in batch], [seed for _, seed in batch]
    run = fusedream(prompts, models, seed=seeds, budget=Budget(**job.sizes))
    steps = checkpointed(run, job.folder(out) / f"batch-{number}", every=every)
    run.turn(**knobs)
    try:
        for step in steps:
            watch(step)
    except KeyboardInterrupt:
        rows += _save(run, out)
        raise
    rows += _save(run, out)


def _save(run: Steerable[Step], out: Path) -> list[Row]:
    """Save the pictures of a run as they stand; none before the first step."""
    made = describe(run) if run.step is not None else []
    paths = [(save(image, what, out), what) for image, what in made]
    return [{"path": str(path), **{name: getattr(what, name) for name in TOLD}} for path, what in paths]


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """Compute with as many threads as there were: sums depend on it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(wanted, os.cpu_count() or 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
