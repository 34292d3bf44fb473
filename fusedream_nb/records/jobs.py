"""What one ``generate`` was asked for, kept beside its pictures until they are finished."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusedream_nb.records import png
from fusedream_nb.records.checkpoint import EVERY, checkpointed
from fusedream_nb.records.film import Film
from fusedream_nb.records.record import describe, save
from fusedream_nb.records.replay import run_of, threads

if TYPE_CHECKING:
    from fusedream_nb.method.budgets import Budget
    from fusedream_nb.method.run import Run, Step
    from fusedream_nb.models import Models

SHOWN = ("prompt", "seed", "score", "judge_score", "seconds", "steps", "steps_done")  # of each picture
UNFINISHED = ".unfinished-"
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Pictures drawn in ``groups`` of prompts and seeds, ``done`` of these finished; a Budget as ``sizes``.

    ``options`` are other arguments of the ``method``, as a Record holds them. ``canvas`` is (height, width)
    where it is not the generator's own, ``film`` says whether each picture gets one.
    """

    groups: list[list[Any]]
    model: str
    device: str
    sizes: dict[str, Any]
    threads: int
    method: str = ""  # of the runs; empty: the first of all
    options: dict[str, Any] = field(default_factory=dict)
    canvas: list[int] | None = None
    film: bool = False
    done: int = 0

    def folder(self, out: Path) -> Path:
        """Return where its state is kept, in the folder of its pictures: the same for the same job."""
        text = json.dumps(asdict(replace(self, done=0)))
        return out / f"{UNFINISHED}{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def keep(self, out: Path) -> None:
        """Write it down, whole or not at all; raises OSError where that cannot be."""
        png.write({self.folder(out) / "job.json": json.dumps(asdict(self)).encode()})


def job(
    prompts: Sequence[Any],
    seeds: Sequence[int],
    model: str | None,
    device: str | None,
    sizes: Budget,
    **asked: Any,  # noqa: ANN401
) -> Job:
    """Return a new job, on a device and with the threads that are here now; raises what ``load`` does.

    A prompt is a text or, where the method takes such, a PictureFile.
    What is ``asked`` besides are fields of a Job.
    """
    import torch

    from fusedream_nb.method import run_class
    from fusedream_nb.method.config import packed
    from fusedream_nb.models import resolve_device

    kind = run_class(asked.get("method", Job.method))
    model = model or os.environ.get("FUSEDREAM_MODEL") or kind.model
    groups = packed(kind.batches(prompts, seeds))
    return Job(groups, model, str(resolve_device(device)), asdict(sizes), torch.get_num_threads(), **asked)


def unfinished(out: Path) -> list[Job]:
    """Return the jobs that a folder of pictures holds; ValueError where there is none, or one was edited."""
    found = []
    for path in sorted(out.glob(f"{UNFINISHED}*/job.json")):
        try:
            found.append(Job(**json.loads(path.read_text("utf-8"))))
            if found[-1].folder(out) != path.parent or found[-1].done not in range(len(found[-1].groups)):
                raise ValueError("its folder's name is another job's")
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path} is damaged, edited, or of another version, so its run cannot go on; remove "
                f"{path.parent} and begin it again."
            ) from error
    if not found:
        raise ValueError(
            f"Nothing unfinished is in {out}; --resume takes the --out of a run that was stopped."
        )
    return found


def begin(job: Job, models: Models) -> Run[Any]:
    """Return the run of a job's next group, before its first step; raises what its method raises."""
    from fusedream_nb.method.config import Budget, RunConfig

    prompts, seeds = job.groups[job.done]
    return run_of(RunConfig(job.method, prompts, seeds, Budget(**job.sizes), job.options), models)


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

    ``watch`` is given each batch's prompts, and what it returns is shown each step. ``knobs`` are set
    after the first of these. At Ctrl-C the best so far is saved, and the job stays to be resumed; where it
    ends before the first step nothing stays, but a folder that was there.
    """
    there = out.exists()
    job.keep(out)
    try:
        with threads(job.threads):
            while job.done < len(job.groups):
                prompts, _ = job.groups[job.done]
                show = watch([text if isinstance(text, str) else Path(text["path"]).name for text in prompts])
                run, folder = begin(job, models), job.folder(out) / f"batch-{job.done}"
                steps, film = checkpointed(run, folder, every=every), Film(folder) if job.film else None
                run.set(**knobs or {})
                try:
                    for step in steps:
                        if film:
                            film.add(step)
                        show(step)
                except KeyboardInterrupt:
                    if run.step is not None:
                        rows += _save(run, out, film)
                    raise
                rows += _save(run, out, film)
                job = replace(job, done=job.done + 1)
                if job.done < len(job.groups):
                    job.keep(out)
    except BaseException:
        if not job.done and not list(job.folder(out).glob("batch-*/state.pt")):
            shutil.rmtree(job.folder(out), ignore_errors=True)
            if not there:
                with suppress(OSError):
                    out.rmdir()
        raise
    shutil.rmtree(job.folder(out), ignore_errors=True)


def _save(run: Run[Any], out: Path, film: Film | None) -> list[Row]:
    """Save the pictures of a run as they stand, with their films."""
    rows = []
    for i, (image, what) in enumerate(describe(run)):
        films = film.encode(i) if film else {}
        path = save(image, what, out, companions=films)
        kept = [str(path.with_suffix(end)) for end in films]
        rows.append({"path": str(path), **{name: getattr(what, name) for name in SHOWN}, "film": kept})
    return rows
