"""What does transport add to the mean of two prompts? Pairs of nouns, on the same seeds, read by the judge.

    python benchmarks/transport_pairs.py --steps 150 --patches 32 --limit 20 --out pairs

For each pair and loss, from the best samples of both prompts side by side, which are measured too: are both
nouns the judge's first two of all, in the whole picture? And over 64 fixed patches: the imbalance
|n₁ - n₂| / 64 of the groups nearest to each prompt, the correlation of the two costs, and the circular
standard deviation of the arrows on the cost plane, in degrees. The judge's ceiling is what it reads in real
scenes of the two.
"""

from __future__ import annotations

import random
from dataclasses import replace

import torch
from rows import Row, fill, keep, mean, parser, settings, sheet, sizes, table

import fusedream_nb as fd
from fusedream_nb.method.scores import PatchScore
from fusedream_nb.method.views import Cutouts
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.scenes import sample_scenes
from fusedream_nb.models.stickers.world import render
from fusedream_nb.notebook.claims import share
from fusedream_nb.notebook.measure import (
    Reader,
    correlation,
    fan,
    imbalance,
    last,
    load_vqgan,
    nouns,
    phrase,
    sample_start,
)

LOSSES = ("mean", "transport")
WAYS = ("start", *LOSSES)
PLACES = 64
CEILING = 5  # real scenes of each pair


def pairs(n: int) -> dict[str, list[str]]:
    """Return n pairs of different nouns by name, always the same ones."""
    drawn = random.Random(0)
    found = [drawn.sample(list(world.NOUNS), 2) for _ in range(n)]
    return {" and ".join(words): words for words in found}


def scenes(words: list[str], size: int) -> torch.Tensor:
    """Return real pictures [n, 3, size, size] of two objects in their natural colours."""
    many = sample_scenes(64, torch.Generator().manual_seed(0))
    two = many[(many.noun[:, 1] >= 0).nonzero()[:CEILING, 0]]
    noun = torch.tensor([[world.NOUNS.index(word) for word in words]]).expand_as(two.noun)
    plain = {name: torch.zeros_like(getattr(two, name)) for name in ("strength", "effect", "sprite")}
    return render(replace(two, noun=noun, colour=torch.full_like(two.colour, -1), **plain), size)


def main() -> None:
    """Measure what is missing, print the table, and write a sheet: the start, the mean, transport."""
    options = parser(__doc__, "pairs", limit=20)
    options.add_argument("--patches", type=int, default=32)
    options.add_argument("--lr", type=float, default=0.05)
    options.add_argument("--smallest", type=float, default=0.5)
    given = options.parse_args()
    models, own = load_vqgan("stickers"), sizes(given)
    read, cuts = Reader(models.judge, nouns(models)), Cutouts(given.patches, given.smallest)
    places = torch.Generator().manual_seed(1)

    def measure(words: list[str]) -> Row:
        prompts, row = [phrase(word) for word in words], Row()
        begin = sample_start(models, prompts, [given.seed], own)
        with torch.no_grad():
            pictures = {"start": models.generator.decode(begin.combine())}
        for loss in LOSSES:
            same = {"seed": given.seed, "budget": own, "cutouts": cuts, "lr": given.lr, "start": begin}
            pictures[loss] = last(fd.transport(prompts, models, loss=loss, **same)).best_image
        keep(given.out, " and ".join(words), **pictures)
        for way, image in pictures.items():
            loss = "mean" if way == "mean" else "transport"
            score = PatchScore(models.clip, prompts, Cutouts(PLACES, given.smallest), loss=loss)
            with torch.no_grad():
                seen = score.match(image, score.sample(1, places.manual_seed(1)))
            row[way] = {
                "judge": read.top(image, 2)[0],
                "imbalance": float(imbalance(seen.costs.argmin(-1), 2)),
                "correlation": float(correlation(seen.costs)),
                "fan": float(fan(seen.tangents)),
            }
        row["real"] = {"judge": read.top(scenes(words, models.generator.size), 2)}
        return row

    shared = settings(given, models, patches=given.patches, lr=given.lr, smallest=given.smallest)
    items = pairs(given.limit)
    report(fill(given.out, shared, items, measure), items)
    sheet(given.out, list(items), *WAYS)


def report(rows: list[Row], items: dict[str, list[str]]) -> None:
    """Print the start and both losses side by side."""
    both = {way: [set(row[way]["judge"]) == set(items[row["item"]]) for row in rows] for way in WAYS}
    of = {
        name: {way: [row[way][name] for row in rows] for way in WAYS}
        for name in ("imbalance", "correlation", "fan")
    }
    more = [float(b) - float(a) for a, b in zip(*(both[loss] for loss in LOSSES), strict=True)]
    evener = [b < a for a, b in zip(*(of["imbalance"][loss] for loss in LOSSES), strict=True)]
    times = [b / max(a, 1e-3) for a, b in zip(*(of["fan"][loss] for loss in LOSSES), strict=True)]
    notes = {"imbalance": f"lower in {share(evener)}", "fan": f"{mean(times)} times"}
    notes["correlation"] = f"below zero in {share([c < 0 for c in of['correlation']['transport']])}"
    lines = [[name, *(mean(found[way]) for way in WAYS), notes[name]] for name, found in of.items()]
    real = [set(top) == set(items[row["item"]]) for row in rows for top in row["real"]["judge"]]
    print("judge's ceiling, real scenes of the two:", share(real))
    first = ["both nouns", *(share(both[way]) for way in WAYS), f"{mean(more)} more"]
    print(table(["", *WAYS, "transport's"], first, *lines))


if __name__ == "__main__":
    main()
