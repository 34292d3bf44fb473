"""What do the start and the over-parameterised latent add? The whole sweep of figure fd-04.

    python benchmarks/ablation.py --steps 60 --out fd-04

Climbs for every prompt from the k best of M samples of the bank that ships, for each M and k with k <= M, and
once from the same mean without weights (plain). The samples are one pool; each prompt's first M begin at a
place of its own. A row holds a cell's AugCLIP, on copies that no climb has seen, and the judge's cosine, one
a prompt; the tables show their means, and Spearman's rank correlations.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from rows import POOL, Row, best, fill, mean, parser, pool, settings, sizes, table
from scipy.stats import spearmanr

import fusedream_nb as fd
from fusedream_nb.method.latents import OverParameterised, Plain
from fusedream_nb.models.generators import Latent
from fusedream_nb.notebook.measure import fixed_score, last

PROMPTS = (  # those of notebook 04
    "a photo of a blue dog",
    "a photo of a castle at sunset",
    "a photo of a purple lion",
    "a photo of a red fish",
    "a photo of a green fox",
    "a photo of a yellow robot",
    "a photo of a penguin at night",
    "a photo of a cyan rocket",
    "a photo of a flaming car",
    "a photo of an owl in the forest",
)
TOGETHER = 5  # prompts in one batch
UNSEEN = 10_000  # the seed of copies that no climb has seen
MEASURES = {"augclip": "AugCLIP", "judge": "judge"}


def cells(Ms: list[int], ks: list[int], plain: int) -> Iterator[Row]:
    """Yield the cells of the sweep, the cheapest starts first; the last is the plain climb."""
    for M in sorted(Ms):
        yield from ({"M": M, "k": k, "weights": "scalar"} for k in sorted(ks) if k <= M)
    yield {"M": max(Ms), "k": plain, "weights": "plain"}


def main() -> None:
    """Measure what is missing, and print the tables."""
    options = parser(__doc__, "fd-04", limit=len(PROMPTS))
    options.add_argument("--Ms", type=int, nargs="+", default=[1, 100, 1000, 10_000])
    options.add_argument("--ks", type=int, nargs="+", default=[1, 5, 10, 15])
    given = options.parse_args()
    models, own, prompts = fd.load(), sizes(given), list(PROMPTS[: given.limit])
    latents, scores = pool(models, prompts, own.start_copies, given.seed, max(POOL, *given.Ms))

    def measure(cell: Row) -> Row:
        row: Row = {**cell, "augclip": [], "judge": []}
        for first in range(0, len(prompts), TOGETHER):
            rows = range(first, min(first + TOGETHER, len(prompts)))
            texts, apart = [prompts[i] for i in rows], len(latents) // len(prompts)
            basis = Latent.cat(
                [best(latents, scores[:, i : i + 1], cell["k"], cell["M"], i * apart) for i in rows]
            )
            plain = cell["weights"] == "plain"
            begin = Plain(basis.map(lambda t: t.mean(1))) if plain else OverParameterised.start(basis)
            seeds = [given.seed + i for i in rows]
            run = fd.fusedream(texts, models, seed=seeds, budget=own, weights=_kind(plain), start=begin)
            image = last(run).best_image
            with torch.no_grad():
                seen = fixed_score(models.clip, texts, own.judged_copies, UNSEEN)
                row["augclip"] += seen(image, torch.Generator()).tolist()
                row["judge"] += fd.CLIPScore(models.judge, texts)(image).tolist()
        return row

    found = cells(given.Ms, given.ks, own.k)
    items = {"M = {M:,}, k = {k}, {weights}".format(**cell): cell for cell in found}
    report(fill(given.out, settings(given, models, prompts=prompts), items, measure))


def _kind(plain: bool) -> str:
    return "plain" if plain else "scalar"


def report(rows: list[Row]) -> None:
    """Print the cells as a table, then the rank correlations, both over the prompts."""
    ks = sorted({row["k"] for row in rows})
    lines = []
    for weights in ("scalar", "plain"):
        own = {(row["M"], row["k"]): row for row in rows if row["weights"] == weights}
        for M in sorted({M for M, _ in own}):
            shown = [" / ".join(mean(own[M, k][of]) for of in MEASURES) if (M, k) in own else "" for k in ks]
            lines.append([f"M = {M:,}" + ", without weights" * (weights == "plain"), *shown])
    print(table(["AugCLIP / judge", *(f"k = {k}" for k in ks)], *lines), "\n")
    moved, lines = [row for row in rows if row["weights"] == "scalar"], []
    for along, fixed in (("M", "k"), ("k", "M")):
        for value in sorted({row[fixed] for row in moved}):
            line = sorted((row for row in moved if row[fixed] == value), key=lambda row: row[along])
            if len(line) > 2:  # of two, it is 1 or -1
                lines.append(
                    [f"with {along}, at {fixed} = {value:,}", *(mean(ranks(line, of)) for of in MEASURES)]
                )
    print(table(["Spearman's correlation", *MEASURES.values()], *lines))


def ranks(line: list[Row], name: str) -> list[float]:
    """Return the rank correlation of a measure with the order of cells, for each prompt."""
    series = zip(*(row[name] for row in line), strict=True)
    return [float(spearmanr(range(len(line)), values).statistic) for values in series]


if __name__ == "__main__":
    main()
