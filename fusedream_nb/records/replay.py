"""A picture made again from its record, and how far it is from the one that was kept."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusedream_nb.records import png
from fusedream_nb.records.record import FORMAT, NUMBERS, SURROUNDINGS, Record, describe, hashes, read_record

if TYPE_CHECKING:
    from torch import Tensor

    from fusedream_nb.method.config import RunConfig
    from fusedream_nb.method.run import Run, Step
    from fusedream_nb.models import Models


def replay(path: str | Path, *, device: str | None = None) -> tuple[Tensor, int]:
    """Make a PNG's picture again; return it [3, h, w] and the largest difference in levels, 0 to 255.

    Warns where the weights or the device are not the recorded ones. Raises what :func:`read_record`,
    ``load`` and ``fusedream`` raise.
    """
    image, _ = rerun(path, device=device)
    return image, difference(path, image)


def difference(path: str | Path, image: Tensor) -> int:
    """Return the largest difference in levels, 0 to 255, of a picture [3, h, w] from a PNG's pixels."""
    old, new = png.decode(path)[0].astype(int), png.levels(image).astype(int)
    return int(abs(old - new).max()) if old.shape == new.shape else 255


def changes(old: Record, new: Record) -> list[str]:
    """Return, a phrase each, how two records' settings and surroundings differ."""
    pairs = [(name, getattr(old, name), getattr(new, name)) for name in SURROUNDINGS]
    return [f"{name} was {then} and is {now}" for name, then, now in pairs if then != now]


def rerun(
    path: str | Path,
    *,
    device: str | None = None,
    watch: Callable[[list[str]], Callable[[Step], object]] = lambda prompts: lambda step: None,
) -> tuple[Tensor, Record]:
    """Run a picture's whole batch again, its knobs turned where they were.

    Returns the picture [3, h, w] and its new record. The device is the recorded one, if there is such a one
    here. ``watch`` is given the prompt, and what it returns is shown every step.
    """
    from fusedream_nb.method.config import Budget, RunConfig

    record = read_record(path)
    show = watch([record.prompt])
    try:
        with threads(record.threads):
            prompts, seeds = record.batch_prompts or [record.prompt], record.batch_seeds or [record.seed]
            sizes = Budget(record.budget, **{name: getattr(record, name) for name in NUMBERS})
            asked = RunConfig(record.method, prompts, seeds, sizes, record.options)
            run = run_of(asked, _load_again(record, device), record.format)
            turned: dict[int, dict[str, Any]] = {}
            for entry in record.knobs:
                own = {run.renamed.get(k, k): v for k, v in entry.items() if k != "step"}
                turned.setdefault(index(entry["step"]), {}).update(own)
            for step in run:
                show(step)
                if step.index >= record.steps_done:
                    break
                run.set(**turned.get(step.index, {}))
            return describe(run)[record.place]
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"What made {path} cannot be run again ({str(error).rstrip('.')}).") from error


@contextmanager
def threads(wanted: int) -> Iterator[None]:
    """Compute with so many threads (0: as many as now), where there are as many: sums depend on it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(wanted or before, os.cpu_count() or 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_of(asked: RunConfig, models: Models, format: int = FORMAT) -> Run[Any]:  # noqa: A002  as in a Record
    """Return a run, before its first step, of what JSON holds of it; raises anything for what is none."""
    from fusedream_nb.method import run_class
    from fusedream_nb.method.config import unpacked

    kind = run_class(asked.method)
    texts, own = list(unpacked(asked.prompts, kind.parts)), unpacked(asked.options, kind.parts)
    config = replace(asked, method=kind.method, prompts=texts, options=own)
    return kind.from_config(kind.upgraded(config) if format < 4 else config, models)


def _load_again(record: Record, device: str | None) -> Models:
    from fusedream_nb.models import load, resolve_device

    with suppress(ValueError):  # the recorded device, unless this machine has none such
        device = device or resolve_device(record.device).type
    canvas = (record.canvas[0], record.canvas[1]) if record.canvas else None
    models = load(record.model, device=device or "auto", canvas=canvas)
    here, files = models.device.type, hashes(models.name, models.clip.name)
    others = [file.rpartition("/")[0] for file in record.weights if not file.startswith(record.model)]
    strange = [name for name in others if name and not any(file.startswith(name) for file in files)]
    if strange or (record.clip and record.clip != models.clip.name):
        raise ValueError(
            f"The picture was made with another encoder, clip = {record.clip or strange[0]!r}, than the "
            f"{models.clip.name} that {record.model} is loaded with; replay does not know where it is."
        )
    if here != record.device:
        warnings.warn(f"The picture was made on {record.device}, and {here} rounds otherwise.", stacklevel=3)
    if record.weights and files != record.weights:
        warnings.warn(f"The weights of {record.model} are not those that made the picture.", stacklevel=3)
    return models
