"""A picture made again from its record, and how far it is from the one that was kept."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusedream_nb.records import png
from fusedream_nb.records.record import SURROUNDINGS, Record, describe, hashes, read_record

if TYPE_CHECKING:
    from torch import Tensor

    from fusedream_nb.method.run import RunConfig, Step
    from fusedream_nb.models import Models


def replay(path: str | Path, *, device: str | None = None) -> tuple[Tensor, int]:
    """Make a PNG's picture again; return it [3, h, w] and the largest difference in levels, 0 to 255.

    Warns where the weights or the device are not the recorded ones. Raises what :func:`read_record`,
    ``load`` and ``fusedream`` raise.
    """
    image, _ = rerun(read_record(path), device=device)
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
    record: Record, *, device: str | None = None, watch: Callable[[Step], object] = lambda step: None
) -> tuple[Tensor, Record]:
    """Run a record's whole batch again, its knobs turned where they were; return its picture and record.

    The picture is [3, h, w]; the device is the recorded one, if there is such a one here. ``watch`` is
    shown every step.
    """
    import torch

    from fusedream_nb.method import run_from

    run = run_from(config_of(record), _load_again(record, device))
    turned: dict[int, dict[str, Any]] = {}
    for entry in record.knobs:
        turned.setdefault(entry["step"], {}).update(
            {run.renamed.get(k, k): v for k, v in entry.items() if k != "step"}
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(min(record.threads or threads, os.cpu_count() or 1))  # sums depend on it
    try:
        for step in run:
            watch(step)
            if step.index >= record.steps_done:
                break
            run.set(**turned.get(step.index, {}))
        return describe(run)[record.place]
    finally:
        torch.set_num_threads(threads)


def config_of(record: Record) -> RunConfig:
    """Return what a record's run was asked for."""
    from fusedream_nb.method import run_class
    from fusedream_nb.method.budgets import Budget
    from fusedream_nb.method.run import RunConfig, unpacked

    numbers = {f.name: getattr(record, f.name) for f in fields(Budget) if f.name != "name"}
    prompts, seeds = record.batch_prompts or [record.prompt], record.batch_seeds or [record.seed]
    kind = run_class(record.method)
    options = unpacked(record.options, kind.parts)
    config = RunConfig(kind.method, prompts, seeds, Budget(record.budget, **numbers), options)
    return kind.upgraded(config) if record.format < 4 else config


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
