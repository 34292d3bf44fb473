"""``fusedream-nb evaluate``: Table 1, on the stickers' test set or captions of one's own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusedream_nb.cli.generate_command import Device, Json, Model, Size
from fusedream_nb.cli.terminal import Stopped, say, table
from fusedream_nb.records import png

if TYPE_CHECKING:
    from fusedream_nb.evaluation.damsm import Damsm
    from fusedream_nb.evaluation.evaluate import Plan
    from fusedream_nb.evaluation.metrics import Estimate
    from fusedream_nb.evaluation.summary import Standing, Summary

NEEDS = {"pyarrow": "evaluate", "torch_fidelity": "evaluate"}
ENCODERS = {"judge": "judge", "clip": "climbed", "damsm": "DAMSM"}  # as the table calls them
LEAST = 500  # real pictures to compare with, where there are fewer captions
EXAMPLES = (
    "Examples:\n\nfusedream-nb evaluate --limit 300 --out table-1\n\n"
    "fusedream-nb evaluate --captions captions_val2014.json --limit 30000 --model biggan-256 "
    "--reference val2014 --out s3://bucket/table-1 --ray auto"
)


def evaluate(
    out: Annotated[str, typer.Option(help="Folder of the run: a path, or an fsspec address.")],
    captions: Annotated[
        Path | None,
        typer.Option(help="COCO's JSON, a CSV or text lines.", show_default="the stickers' test set"),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Names with commas between them.", show_default="all")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Only the first so many captions.")] = None,
    model: Model = None,
    budget: Size = None,
    device: Device = None,
    reference: Annotated[
        Path | None, typer.Option(help="Folder of real pictures, for FID and KID.", show_default="stickers")
    ] = None,
    inception: Annotated[
        Path | None, typer.Option(help="File of torch-fidelity's Inception weights.")
    ] = None,
    damsm: Annotated[
        Path | None, typer.Option(help="Folder of DAMSM's encoders, for the paper's R-precision.")
    ] = None,
    ray: Annotated[str | None, typer.Option(help="A cluster's address, or local to start one here.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="With --ray: how many.")] = None,
    as_json: Json = False,
) -> None:
    """Draw each caption by each method, at equal work, and measure what comes: the paper's Table 1.

    The folder keeps a record of every picture. Stopped or killed, the same command makes what is missing.
    """
    if workers is not None and ray is None:
        raise ValueError("--workers is for --ray; without it one process draws everything.")
    plan = _plan(captions, methods, limit, model, budget, device, ray, out)
    from fusedream_nb.evaluation.damsm import Damsm

    if "://" not in out:
        png.check_folder(Path(out))
    encoders = None if damsm is None else Damsm.from_folder(damsm)
    if encoders is not None:
        encoders.numbers(plan.captions)  # what it cannot read is told now, not after hours
    _draw(plan, out, ray, workers)
    found = _measure(plan, out, reference, inception, encoders)
    if as_json:
        print(json.dumps({"settings": plan.settings(), **found.as_json()}, indent=1))
        return
    table(rows(found))


def _plan(
    captions: Path | None,
    methods: str | None,
    limit: int | None,
    model: str | None,
    budget: str | None,
    device: str | None,
    ray: str | None,
    out: str,
) -> Plan:
    """Return what is asked for; ValueError for what cannot be drawn or is not installed."""
    for module, extra in {**NEEDS, **({"ray": "cluster"} if ray else {})}.items():
        if find_spec(module) is None:
            raise ValueError(f'{module} is missing; python -m pip install "fusedream_nb[{extra}]" brings it.')
    import torch

    from fusedream_nb.evaluation.captions import captions as read
    from fusedream_nb.evaluation.contest import METHODS, sizes_of
    from fusedream_nb.evaluation.evaluate import Plan
    from fusedream_nb.evaluation.store import Store
    from fusedream_nb.models import resolve_device

    model = model or os.environ.get("FUSEDREAM_MODEL") or "stickers"
    own = captions is None and model.partition("/")[0] == "stickers"
    if captions is None and not own:
        raise ValueError("The test set is of stickers; give --captions for another model.")
    asked = [name.strip() for name in methods.split(",")] if methods else list(METHODS)
    names = tuple(dict.fromkeys(n for n in asked if n != "real" or own or methods))
    if unknown := [name for name in names if name not in METHODS]:
        raise ValueError(f"No method is called {unknown[0]!r}; known are {', '.join(METHODS)}.")
    where = resolve_device(device)
    threads = 1 if ray or where.type != "cpu" else torch.get_num_threads()
    threads = (Store(out).settings() or {}).get("threads", threads)  # a run that goes on computes as it began
    return Plan(read(captions, limit), names, sizes_of(budget), model, str(where), threads)


def _draw(plan: Plan, out: str, ray: str | None, workers: int | None) -> None:
    """Make what is missing under a bar; Ctrl-C says what is kept."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fusedream_nb.evaluation.cluster import run_on_ray
    from fusedream_nb.evaluation.evaluate import run_here
    from fusedream_nb.evaluation.store import Store

    steps: Iterator[tuple[int, int]]
    steps = run_on_ray(plan, out, ray, workers) if ray else run_here(plan, Store(out))
    made = total = 0
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), redirect_stdout=False)
    with redirect_stdout(sys.stderr), progress as bar:  # Ray tells of its workers on stdout
        task = bar.add_task("", total=None, rate="")
        try:
            for made, total in steps:
                speed = bar.tasks[0].speed
                rate = f"{60 * speed:.1f} pictures a minute" if speed else ""
                bar.update(task, completed=made, total=total, rate=rate)
        except KeyboardInterrupt:
            kept = f"{made} of {total} missing pictures were made"
            raise Stopped(f"Stopped; {kept}, and the same command makes the others.") from None


def _measure(
    plan: Plan, out: str, reference: Path | None, inception: Path | None, damsm: Damsm | None
) -> Summary:
    from fusedream_nb.evaluation.metrics import FEW
    from fusedream_nb.evaluation.networks import network_of, reference_of
    from fusedream_nb.evaluation.store import Store
    from fusedream_nb.evaluation.summary import summarise
    from fusedream_nb.models import load

    models = load(plan.model, device=plan.device)
    real = bool(models.world) or reference is not None
    network = network_of(models, inception if real else None) if real else None
    features = None
    if network is not None:
        features = reference_of(models, network, max(LEAST, len(plan.captions)), reference)
    if damsm is not None:
        damsm.to(models.device)
    found = summarise(plan, Store(out), models, network, features, damsm=damsm)
    n = found.standings[0].n
    say(f"N = {n:,} pictures a method; {found.library}; features of {found.network}.")
    if features is None:
        say("Without --reference there are no real pictures to compare with: no FID, KID, IS.")
    elif min(n, len(features)) < FEW:
        say(f"FID and IS are biased with fewer than {FEW:,} pictures, and compare no two N; KID leads.")
    return found


def rows(found: Summary) -> list[list[str]]:
    """Return the table's cells: a method a row, 95% intervals in brackets, R-precision with sd of repeats."""
    names = list(found.standings[0].set_metrics)
    precisions = [f"R-prec. {ENCODERS[name]} %" for name in found.standings[0].r_precision]
    head = ["method", *precisions, "CLIP judge", "CLIP climbed", "AugCLIP"]
    return [[*head, *names, "seconds"], *(_cells(one, names) for one in found.standings)]


def _cells(one: Standing, names: list[str]) -> list[str]:
    precision = [
        f"{100 * one.r_precision[name].value:.1f} ± {100 * one.deviation[name]:.1f} "
        f"[{100 * one.r_precision[name].low:.1f}, {100 * one.r_precision[name].high:.1f}]"
        for name in one.r_precision
    ]
    cosines = [one.clip_score["judge"], one.clip_score["clip"], one.augclip]
    shown = [_short(estimate) for estimate in (*cosines, *(one.set_metrics[name] for name in names))]
    return [one.method, *precision, *shown, f"{one.seconds:.2f}"]


def _short(one: Estimate) -> str:
    return f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"
