"""What the benchmarks over many prompts share: rows that go on where they were, and starts from a bank.

A benchmark's folder holds ``rows.jsonl``, whose first line is the settings, and its pictures. Stopped or
killed, the same command measures what is missing; other settings are refused.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

import torch
from scipy.stats import t
from torch import Tensor
from torchvision.io import decode_image
from torchvision.utils import save_image

import fusedream_nb as fd
from fusedream_nb.method.bank import WORTH
from fusedream_nb.method.budgets import Budget
from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent
from fusedream_nb.notebook.measure import Dealt
from fusedream_nb.records.record import hashes, slug

SIZES = ("M", "k", "steps", "copies", "judged_copies")
POOL = 10_000  # samples of the bank that ships
Row = dict[str, Any]
Item = TypeVar("Item")


def parser(doc: str | None, out: str, *, budget: str = "gallery", limit: int) -> argparse.ArgumentParser:
    """Return the options of all: how many prompts, a seed, a folder, a budget, and its sizes that differ."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--budget", default=budget)
    for name in SIZES:
        options.add_argument(f"--{name.replace('_', '-')}", type=int, help="instead of the budget's")
    options.add_argument("--limit", type=int, default=limit, help="how many prompts")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=Path(out), help="folder")
    return options


def sizes(given: argparse.Namespace) -> Budget:
    """Return the sizes that were asked for."""
    own = {name: value for name in SIZES if (value := getattr(given, name)) is not None}
    return replace(fd.budget(given.budget), **own)


def settings(given: argparse.Namespace, models: Models, **more: object) -> Row:
    """Return what all rows of a folder share."""
    weights = hashes(models.name, models.clip.name)
    return {
        "model": models.name,
        "sizes": asdict(sizes(given)),
        "seed": given.seed,
        **more,
        "weights": weights,
    }


def finished(path: Path, settings: Row) -> list[Row]:
    """Return the rows of a file, or begin it; SystemExit where the file is of other settings."""
    settings = json.loads(json.dumps(settings))
    text = path.read_text("utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]  # what was cut off in the middle of a line is done again
    rows = [json.loads(line) for line in whole.splitlines()]
    if rows and rows[0] != settings:
        differ = sorted(name for name in settings if rows[0].get(name) != settings[name])
        raise SystemExit(f"{path} was begun with other settings ({', '.join(differ)}); name another --out.")
    if whole != text or not rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(whole or json.dumps(settings) + "\n", "utf-8")
    return rows[1:]


def fill(folder: Path, settings: Row, items: Mapping[str, Item], measure: Callable[[Item], Row]) -> list[Row]:
    """Return the row of each item, in their order; those that a folder lacks are measured and appended."""
    path = folder / "rows.jsonl"
    there = {row["item"]: row for row in finished(path, settings)}
    for name, item in items.items():
        if name not in there:
            began = time.process_time()
            row = {"item": name, **measure(item)}
            there[name] = row | {"cpu_s": round(time.process_time() - began, 1)}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(there[name]) + "\n")
            print(f"{name}: {there[name]['cpu_s']} s", flush=True)
    print(f"\n{len(items)} rows, {fmean(there[name]['cpu_s'] for name in items):.1f} s of a core each\n")
    return [there[name] for name in items]


@torch.no_grad()
def pool(
    models: Models, prompts: Sequence[str], copies: int, seed: int, M: int = POOL
) -> tuple[Latent, Tensor]:
    """Return a seed's M samples, 1,000 at least, and their scores [M, prompts] by the bank of them."""
    every = Dealt(models, max(M, WORTH), copies, [seed])
    return every.latents, every.vectors.float().cpu() @ models.clip.encode_text(list(prompts)).float().cpu().T


def best(latents: Latent, scores: Tensor, k: int, M: int, first: int = 0) -> Latent:
    """Return the k best [prompts, k, …] of M samples from a first one on, counted round."""
    rows = (torch.arange(M) + first) % len(latents)
    return latents[rows[scores[rows].topk(k, dim=0).indices.T]]


def keep(folder: Path, item: str, **pictures: Tensor) -> None:
    """Write pictures [1, 3, h, w] of an item, each by the name of its way."""
    for way, picture in pictures.items():
        save_image(picture / 2 + 0.5, folder / f"{slug(item, 0)}-{way}.png")


def sheet(folder: Path, items: Sequence[str], *ways: str, columns: int = 10) -> None:
    """Write the items' pictures as a sheet without words: of each row of items, a row for each way."""
    groups = [items[first : first + columns] for first in range(0, len(items), columns)]
    files = [folder / f"{slug(item, 0)}-{way}.png" for some in groups for way in ways for item in some]
    save_image(
        torch.stack([decode_image(str(file)) for file in files]) / 255, folder / "sheet.png", nrow=columns
    )


def mean(values: Sequence[float]) -> str:
    """Return the mean of values with Student's 95 % interval of it: "0.48 [0.45, 0.51]"."""
    if len(values) < 2:
        return f"{values[0]:.3g}" if values else "–"
    centre, half = fmean(values), t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{centre:.3g} [{centre - half:.3g}, {centre + half:.3g}]"


def table(head: Sequence[str], *lines: Sequence[str]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))
