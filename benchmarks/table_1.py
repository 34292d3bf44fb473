"""Table 1 at sizes of one's own: each caption of the stickers' test set by each method, at equal work.

    python benchmarks/table_1.py --M 1000 --steps 60 --copies 4 --limit 60 --seeds 0 1 2 --out table-1

What ``fusedream-nb evaluate`` does at a budget's sizes, a table for each seed and one of all. The captions
share their starts: the samples of each M are ranked once and kept as a bank. Killed, it goes on; with a
smaller --limit it measures what is there.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from rows import parser, sizes, table
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.cli.evaluate_command import LEAST, rows
from fusedream_nb.evaluation.captions import captions
from fusedream_nb.evaluation.methods import METHODS, composition_sizes, work
from fusedream_nb.evaluation.metrics import mean_interval, r_precision
from fusedream_nb.evaluation.networks import network_of, reference_of
from fusedream_nb.evaluation.runs import Folder, Plan, here, run
from fusedream_nb.evaluation.table import summarise
from fusedream_nb.method import bank
from fusedream_nb.models import Models

OURS = "fusedream-5"


def main() -> None:
    """Draw what is missing, print the tables, and write them as JSON."""
    options = parser(__doc__, "table-1", limit=60)
    options.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    options.add_argument("--seeds", nargs="+", type=int, help="instead of --seed: several, one after another")
    given = options.parse_args()
    models, own, texts = fd.load(), sizes(given), captions(None, given.limit)
    bank.WORTH = min(bank.WORTH, composition_sizes(own).M)
    network = network_of(models)
    reference, folder = reference_of(models, network, max(LEAST, len(texts))), Folder(str(given.out))
    found, shares = {}, []
    seeds, named = given.seeds or [given.seed], tuple(given.methods)
    plans = [Plan(texts, named, own, models.name, "cpu", 1, seed) for seed in seeds]
    for plan in plans:
        for made, total in run(plan, folder, partial(here, plan=plan, folder=folder, models=models)):
            print(f"{made} of {total} pictures", flush=True)
        result = summarise(plan, folder, models, network, reference)
        found[plan.seed] = asdict(result)
        shares.append(retrieved(plan, folder, models))
        print(f"\nSeed {plan.seed}, N = {len(texts)}, {work(own):,} samples' work\n\n{table(*rows(result))}")
    every = all_seeds({name: torch.stack([some[name] for some in shares]).mean(0) for name in given.methods})
    print(f"\nAll seeds\n\n{table(*every)}")
    text = json.dumps({"settings": plans[0].settings(), "seeds": found, "all": every}, indent=1)
    (given.out / "table-1.json").write_text(f"{text}\n", "utf-8")


def retrieved(plan: Plan, folder: Folder, models: Models) -> dict[str, Tensor]:
    """Return how often the judge finds each caption [n] from a method's picture, as the table counts it."""
    texts, found = models.judge.encode_text(list(plan.captions)).cpu(), {}
    for name in plan.methods:
        records = folder.records(name, plan.seed)
        records = records.take(pc.index_in(pa.array(plan.captions), records["caption"])).combine_chunks()
        vectors = torch.from_numpy(np.stack(list(records["judge"].to_numpy())))
        found[name] = r_precision(vectors, texts, torch.Generator().manual_seed(0)).hits.double().mean(0)
    return found


def all_seeds(shares: dict[str, Tensor]) -> list[list[str]]:
    """Return the R-precision of all seeds, and what ours is ahead by; the intervals are over the captions."""
    rng = torch.Generator().manual_seed(0)

    def interval(values: Tensor) -> str:
        one = mean_interval(100 * values, rng)
        return f"{one.value:.1f} [{one.low:.1f}, {one.high:.1f}]"

    head = ["method", "R-prec. judge %, all seeds", f"{OURS} is ahead by"]
    rest = [name for name in shares if name != OURS and OURS in shares]
    ahead = {name: interval(shares[OURS] - shares[name]) for name in rest}
    return [head, *([name, interval(share), ahead.get(name, "")] for name, share in shares.items())]


if __name__ == "__main__":
    main()
