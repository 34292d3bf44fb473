"""``fusedream-nb evaluate``: Table 1, on the stickers' test set or captions of one's own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

import fusedream_nb as fd
from fusedream_nb.cli.terminal import Bar, Device, Json, Model, Size, Stopped, say, table
from fusedream_nb.records import png

if TYPE_CHECKING:
    from fusedream_nb.evaluation.metrics import Estimate
    from fusedream_nb.evaluation.table import MethodResult, Table

ENCODERS = {"judge": "judge", "clip": "climbed", "damsm": "DAMSM"}  # as the table calls them
FIGURE = "fd-table-1"  # whose sizes are taken
LEAST = 500  # real pictures to compare with, where there are fewer captions
EXAMPLES = (
    "Examples:\n\nfusedream-nb evaluate --limit 300 --out table-1\n\n"
    "fusedream-nb evaluate --captions captions_val2014.json --limit 30000 --model biggan-256 "
    "--reference val2014 --out s3://bucket/table-1 --ray auto"
)


def evaluate(
    out: Annotated[str, Option(help="Folder of the run: a path, or an fsspec address.")],
    captions: Annotated[
        Path | None,
        Option(help="COCO's JSON, JSON lines, a CSV or text lines.", show_default="the stickers' test set"),
    ] = None,
    methods: Annotated[str | None, Option(help="Names with commas between them.", show_default="all")] = None,
    limit: Annotated[int | None, Option(min=2, help="Only the first so many captions.")] = None,
    model: Model = None,
    budget: Size = None,
    device: Device = None,
    reference: Annotated[
        Path | None, Option(help="Folder of real pictures, for FID and KID.", show_default="stickers")
    ] = None,
    inception: Annotated[Path | None, Option(help="File of torch-fidelity's Inception weights.")] = None,
    damsm: Annotated[
        Path | None, Option(help="Folder of DAMSM's encoders, for the paper's R-precision.")
    ] = None,
    ray: Annotated[str | None, Option(help="A cluster's address, or local to start one here.")] = None,
    workers: Annotated[int | None, Option(min=1, help="With --ray: how many.")] = None,
    as_json: Json = False,
) -> None:
    """Draw each caption by each method, at equal work, and measure what comes: the paper's Table 1.

    The folder keeps a record of every picture. Stopped or killed, the same command makes what is missing.
    """
    if workers is not None and ray is None:
        raise ValueError("--workers is for --ray; without it one process draws everything.")
    needs = {"pyarrow": "evaluate", "torch_fidelity": "evaluate"} | ({"ray": "cluster"} if ray else {})
    for module, extra in needs.items():
        if find_spec(module) is None:
            raise ValueError(f'{module} is missing; python -m pip install "fusedream_nb[{extra}]" brings it.')
    import torch

    from fusedream_nb.evaluation.captions import captions as read
    from fusedream_nb.evaluation.methods import chosen
    from fusedream_nb.evaluation.metrics import FEW
    from fusedream_nb.evaluation.networks import Damsm, network_of, reference_of
    from fusedream_nb.evaluation.runs import Folder, Plan, here, on_ray, run
    from fusedream_nb.evaluation.table import summarise

    # Everything that was given is opened before the first picture.
    model = model or os.environ.get("FUSEDREAM_MODEL") or "stickers"
    if captions is None and model.partition("/")[0] != "stickers":
        raise ValueError("The test set is of stickers; give --captions for another model.")
    texts = read(captions, limit)
    if len(texts) < 2:
        raise ValueError(f"{captions} holds a single caption; a table compares at least two.")
    names = chosen([name.strip() for name in methods.split(",")] if methods else None, texts, model)
    folder = Folder(out)
    if "://" not in out:
        png.check_folder(Path(out))
    models = fd.load(model, device=device)
    threads = 1 if ray or models.device.type != "cpu" else torch.get_num_threads()
    threads = folder.settings().get("threads", threads)  # a run that goes on computes as it began
    sizes = fd.budget(budget, models, figure=FIGURE)
    plan = Plan(texts, names, sizes, model, str(models.device), threads)
    network = features = None
    if models.world or reference is not None:
        network = network_of(models, inception)
        features = reference_of(models, network, max(LEAST, len(plan.captions)), reference)
    elif inception is not None:
        raise ValueError("--inception measures pictures against those of --reference; give that folder too.")
    encoders = None if damsm is None else Damsm(damsm).to(models.device)
    if encoders is not None:
        encoders.numbers(plan.captions)
    made = partial(on_ray, address=ray, workers=workers) if ray else partial(here, models=models)
    _draw(run(plan, folder, partial(made, plan=plan, folder=folder)))
    found = summarise(plan, folder, models, network, features, damsm=encoders)
    n = found.results[0].n
    say(f"N = {n:,} pictures per method; {found.library}; features of {found.network}.")
    if features is None:
        say("Without --reference there are no real pictures to compare with: no FID, KID, IS.")
    elif found.results[0].set_metrics and min(n, found.reference) < FEW:
        say(f"FID and IS are biased with fewer than {FEW:,} pictures, and compare no two N; KID leads.")
    if as_json:
        print(json.dumps({"settings": plan.settings(), **asdict(found)}, indent=1))
    else:
        table(rows(found))


def _draw(states: Iterator[tuple[int, int]]) -> None:
    """Make what is missing under a bar; Ctrl-C says what is kept."""
    made, total, began = 0, 0, time.monotonic()
    with redirect_stdout(sys.stderr), Bar() as bar:  # Ray reports its workers on stdout
        try:
            for made, total in states:
                rate = 60 * made / (time.monotonic() - began)
                bar.show(made, total, "pictures", f"{made}/{total}  {rate:.1f} per minute" if made else "")
        except KeyboardInterrupt:
            kept = f"{made} of {total} missing pictures were made"
            raise Stopped(f"Stopped; {kept}, and the same command makes the others.") from None


def rows(found: Table) -> list[list[str]]:
    """Return the table's cells: a method per row, 95% intervals in brackets, R-precision ± std of repeats."""
    names = list(found.results[0].set_metrics)

    def short(one: Estimate) -> str:
        return f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"

    def cells(one: MethodResult) -> list[str]:
        precision = [
            f"{100 * share.value:.1f} ± {100 * one.r_precision_std[name]:.1f} "
            f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"
            for name, share in one.r_precision.items()
        ]
        scores = [one.clip_score["judge"], one.clip_score["clip"], one.augclip]
        shown = map(short, (*scores, *(one.set_metrics[name] for name in names)))
        return [one.method, *precision, *shown, f"{one.seconds:.2f}"]

    precisions = [f"R-prec. {ENCODERS[name]} %" for name in found.results[0].r_precision]
    head = ["method", *precisions, "CLIP judge", "CLIP climbed", "AugCLIP", *names, "seconds"]
    return [head, *map(cells, found.results)]
