"""What do the start and the over-parameterised latent add? The whole sweep of figure fd-04.

    python benchmarks/ablation.py --budget gallery --out ablation.jsonl

Climbs for every prompt from the k best of M random points, for each M and k with k <= M, and once from
the same mean without weights (plain). Appends a line of JSON for each cell that is finished; started again
with the same settings and file, it goes on after them. Then prints the means over the prompts, by AugCLIP
on copies that no climb has seen and by the judge, and Spearman's rank correlations.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy.stats import spearmanr

import fusedream_nb as fd
from fusedream_nb.method import views
from fusedream_nb.method.latents import Plain
from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent
from fusedream_nb.records.record import hashes

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
MEASURES = ("augclip", "judge")  # as the tables name their columns
Row = dict[str, Any]


def cells(given: argparse.Namespace, k: int) -> Iterator[Row]:
    """Yield the cells of the sweep, the cheapest starts first; the last is the plain climb."""
    for M in given.M:
        yield from ({"M": M, "k": each, "weights": "scalar"} for each in given.k if each <= M)
    yield {"M": max(given.M), "k": k, "weights": "plain"}


def finished(path: Path, settings: Row) -> list[Row]:
    """Return the cells in a file, or begin it; SystemExit where the file is of other settings."""
    text = path.read_text("utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]  # what was cut off in the middle of a line is done again
    rows = [json.loads(line) for line in whole.splitlines()]
    if rows and rows[0] != settings:
        differ = sorted(name for name in settings if rows[0].get(name) != settings[name])
        raise SystemExit(f"{path} was begun with other settings ({', '.join(differ)}); name another --out.")
    if whole != text or not rows:
        path.write_text(whole or json.dumps(settings) + "\n", "utf-8")
    return rows[1:]


@torch.no_grad()
def draw(models: Models, prompts: list[str], M: int, copies: int, seed: int) -> tuple[Latent, torch.Tensor]:
    """Draw M latents, once for the whole sweep, and score their pictures with every prompt [M, prompts]."""
    rng = torch.Generator().manual_seed(seed)
    rank = fd.AugCLIP(models.clip, prompts, copies, fixed=views.sample(1, copies, rng))
    pool, batch = models.generator.sample(M, rng), max(2, 64**3 // models.generator.size**2)
    parts = [pool[first : first + batch] for first in range(0, M, batch)]
    return pool, torch.cat([rank.table(models.generator.decode(part), rng).cpu() for part in parts])


def start(pool: Latent, table: torch.Tensor, M: int, k: int) -> Latent:
    """Return the k best [prompts, k, …] of each prompt's first M, which begin at a place of its own."""
    size, prompts = table.shape
    rows = [(torch.arange(M) + i * (size // prompts)) % size for i in range(prompts)]
    return pool[torch.stack([row[table[row, i].topk(k).indices] for i, row in enumerate(rows)])]


def climb(models: Models, prompts: list[str], basis: Latent, cell: Row, settings: Row) -> torch.Tensor:
    """Return the last pictures [prompts, 3, h, w] of climbs from basis latents [prompts, k, …]."""
    made, sizes = [], settings["sizes"]
    for first in range(0, len(prompts), settings["together"]):
        some = slice(first, first + settings["together"])
        texts, part = prompts[some], basis[some]
        plain = cell["weights"] == "plain"
        point = Plain(part.map(lambda t: t.mean(1))) if plain else fd.OverParameterised.start(part)
        score = fd.AugCLIP(models.clip, texts, sizes["copies"])
        rngs = [torch.Generator().manual_seed(settings["seed"] + first + i) for i in range(len(texts))]
        climbed = fd.climb(models.generator, score, point, rngs, steps=sizes["steps"], lr=sizes["lr"])
        for step in climbed:
            image = step.image
        made.append(image)
    return torch.cat(made)


def measured(models: Models, prompts: list[str], images: torch.Tensor, copies: int, seed: int) -> Row:
    """Return each picture's AugCLIP on fresh copies and the judge's cosine."""
    rng = torch.Generator().manual_seed(seed + 1)
    score = fd.AugCLIP(models.clip, prompts, copies, fixed=views.sample(1, copies, rng))
    with torch.no_grad():
        judged = fd.CLIPScore(models.judge, prompts)(images)
        return {"augclip": score(images, rng).tolist(), "judge": judged.tolist()}


def run(models: Models, settings: Row, wanted: list[Row], out: Path) -> None:
    """Run what is wanted and append a line for each cell as soon as it is there."""
    prompts, sizes, seed = settings["prompts"], settings["sizes"], settings["seed"]
    began = time.monotonic()
    pool, table = draw(models, prompts, sizes["M"], sizes["start_copies"], seed)
    print(f"{sizes['M']} samples drawn and scored in {time.monotonic() - began:.0f} s", flush=True)
    for cell in wanted:
        began = time.monotonic()
        images = climb(models, prompts, start(pool, table, cell["M"], cell["k"]), cell, settings)
        row = {**cell, **measured(models, prompts, images, sizes["judged_copies"], seed)}
        row["seconds"] = round(time.monotonic() - began, 1)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"M = {cell['M']}, k = {cell['k']}, {cell['weights']}: {row['seconds']} s", flush=True)


def spoken(values: list[float]) -> str:
    """Return the mean and the deviation of values."""
    return f"{fmean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def report(rows: list[Row]) -> None:
    """Print the cells as a table, then the rank correlations, both over the prompts."""
    print("\n| M | k | weights | AugCLIP | judge |\n|---|---|---|---|---|")
    for row in rows:
        numbers = " | ".join(spoken(row[name]) for name in MEASURES)
        print(f"| {row['M']:,} | {row['k']} | {row['weights']} | {numbers} |")
    print("\n| Spearman's correlation | AugCLIP | judge |\n|---|---|---|")
    moved = [row for row in rows if row["weights"] == "scalar"]
    for along, fixed in (("M", "k"), ("k", "M")):
        for value in sorted({row[fixed] for row in moved}):
            line = sorted((row for row in moved if row[fixed] == value), key=lambda row: row[along])
            if len(line) > 2:  # of two, it is 1 or -1
                numbers = " | ".join(spoken(correlations(line, name)) for name in MEASURES)
                print(f"| with {along}, at {fixed} = {value:,} | {numbers} |")


def correlations(line: list[Row], name: str) -> list[float]:
    """Return the rank correlation of a measure with the order of cells, for each prompt."""
    series = zip(*(row[name] for row in line), strict=True)
    return [float(spearmanr(range(len(line)), values).statistic) for values in series]


def main() -> None:
    """Read the command line, run what is not there yet, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="default: FUSEDREAM_MODEL, else stickers")
    parser.add_argument("--device", help="default: FUSEDREAM_DEVICE, else the best there is")
    parser.add_argument("--budget", default="gallery", help="whose steps, rate and copies are taken")
    parser.add_argument("--M", type=int, nargs="+", default=[1, 100, 1000, 10_000])
    parser.add_argument("--k", type=int, nargs="+", default=[1, 5, 10, 15])
    parser.add_argument("--steps", type=int, help="default: the budget's")
    parser.add_argument("--copies", type=int, help="default: the budget's")
    parser.add_argument(
        "--prompts", type=Path, help="a file with a prompt a line; default: ten of the stickers"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", type=int, default=5, help="pictures in one batch")
    parser.add_argument("--out", type=Path, default=Path("ablation.jsonl"), help="the cells, a line each")
    given = parser.parse_args()
    given.M, given.k = sorted(set(given.M)), sorted(set(given.k))
    prompts = given.prompts.read_text("utf-8").splitlines() if given.prompts else list(PROMPTS)
    prompts = [text for text in prompts if text.strip()]
    models = fd.load(given.model, device=given.device)
    own = {"M": max(given.M), "steps": given.steps, "copies": given.copies}
    own = {name: value for name, value in own.items() if value is not None}
    sizes = replace(fd.budget(given.budget), **own)
    settings = {
        "sizes": asdict(sizes),
        "prompts": prompts,
        "seed": given.seed,
        "together": given.together,
        "model": models.name,
        "weights": hashes(models.name, models.clip.name),
    }
    rows = finished(given.out, settings)
    there = [tuple(row[name] for name in ("M", "k", "weights")) for row in rows]
    wanted = [cell for cell in cells(given, sizes.k) if tuple(cell.values()) not in there]
    print(f"{len(rows)} cells are there, {len(wanted)} to go", flush=True)
    if wanted:
        run(models, settings, wanted, given.out)
    report(finished(given.out, settings))


if __name__ == "__main__":
    main()
