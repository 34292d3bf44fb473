"""Table 1 at sizes of one's own: each caption of the stickers' test set by each method, at equal work.

    python benchmarks/table_1.py --M 1000 --steps 100 --limit 60 --out table-1

What ``fusedream-nb evaluate`` does at a budget's sizes. The captions share their starts: the samples of each
M are ranked once and kept as a bank. Killed, it goes on; with a smaller --limit it measures what is there.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial

from rows import parser, sizes, table

import fusedream_nb as fd
from fusedream_nb.cli.evaluate_command import LEAST, rows
from fusedream_nb.evaluation.captions import captions
from fusedream_nb.evaluation.methods import METHODS, composition_sizes, work
from fusedream_nb.evaluation.networks import network_of, reference_of
from fusedream_nb.evaluation.runs import Folder, Plan, here, run
from fusedream_nb.evaluation.table import summarise
from fusedream_nb.method import bank


def main() -> None:
    """Draw what is missing, print the table, and write it as JSON."""
    options = parser(__doc__, "table-1", limit=60)
    options.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    given = options.parse_args()
    models, own, texts = fd.load(), sizes(given), captions(None, given.limit)
    bank.WORTH = min(bank.WORTH, composition_sizes(own).M)
    plan = Plan(texts, tuple(given.methods), own, models.name, "cpu", 1, given.seed)
    folder = Folder(str(given.out))
    for made, total in run(plan, folder, partial(here, plan=plan, folder=folder, models=models)):
        print(f"{made} of {total} pictures", flush=True)
    network = network_of(models)
    found = summarise(plan, folder, models, network, reference_of(models, network, max(LEAST, len(texts))))
    cells = rows(found)
    print(f"\nN = {found.results[0].n}, {work(own):,} samples' work a picture\n\n{table(*cells)}")
    text = json.dumps({"settings": plan.settings(), **asdict(found)}, indent=1)
    (given.out / "table-1.json").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
