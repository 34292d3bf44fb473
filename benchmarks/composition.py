"""What does composition add, and what does its second goal cost? Prompts of two objects, read by the judge.

    python benchmarks/composition.py --budget gallery --limit 30 --seed 0 --out composition

For each prompt: FuseDream's single picture; Algorithm 2 with the bi-level rule; and AugCLIP alone, from the
same start, at the placement that won. The judge, which was never climbed, reads the picture: both nouns must
be its first two of all. Finished prompts are kept in OUT: the same command goes on after them. Seconds are of
the clock, memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision

import fusedream_nb as fd
from fusedream_nb.method.barrier import rule
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.placement import PLACEMENTS, Placement, Placements
from fusedream_nb.models import Models
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.captions import article
from fusedream_nb.models.stickers.reading import read_nouns
from fusedream_nb.notebook.claims import numbers_line, share

FOREGROUNDS = ("dog", "cat", "elephant", "butterfly", "rabbit", "bird", "penguin", "frog", "fox", "robot")
BACKGROUNDS = ("house", "church", "castle", "car", "tree", "sailboat")
RULES = ("bilevel", "augclip")
RELATIONS = "on top of", "next to", "below"
PROMPTS = tuple(  # (foreground, relation, background), 30 in all
    (FOREGROUNDS[i % 10], RELATIONS[i // 10], BACKGROUNDS[(i + i // 10) % 6]) for i in range(30)
)


def single(models: Models, prompt: str, sizes: Budget, seed: int) -> dict[str, Any]:
    """Return FuseDream's one picture for the whole prompt."""
    for step in fd.fusedream(prompt, models, seed=seed, budget=sizes):
        last = step
    return {"image": last.best_image, "score": float(last.best_score), "seconds": last.seconds}


def composed(
    models: Models,
    words: tuple[str, str, str],
    sizes: Budget,
    given: argparse.Namespace,
    name: str,
    places: Sequence[Placement],
) -> dict[str, Any]:
    """Return Algorithm 2's picture, blended, with the fixed s_Fuse and the ℓ_Fuse of its last step."""
    own = [None if given.whole else f"a photo of {article(words[i])}" for i in (0, 2)]
    steps = fd.compose(
        _prompt(words),
        models,
        foreground=own[0],
        background=own[1],
        placements=Placements.of(places, given.keep),
        rule=rule(name, beta=given.beta),
        seed=given.seed,
        budget=sizes,
    )
    for step in steps:
        last = step
    return {
        "image": last.blended(),
        "score": float(last.best_score[last.winner]),
        "augclip": float(last.judged[last.winner]),
        "lpips": float(last.loss[last.winner]),
        "place": PLACEMENTS.index(last.placements[last.winner]),
        "seconds": last.seconds,
    }


def _prompt(words: tuple[str, str, str]) -> str:
    return f"{article(words[0])} {words[1]} {article(words[2])}"


def both(models: Models, words: tuple[str, str, str], image: torch.Tensor) -> bool:
    """Say whether the judge's first two nouns are those of the prompt."""
    with torch.no_grad():
        best = read_nouns(models.judge, models.judge.encode_image(image)).topk(2).indices[0].tolist()
    return {world.NOUNS[i] for i in best} == {words[0], words[2]}


def peak() -> float:
    """Return the most memory that this process has held, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", default="gallery")
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--keep", type=int, help="so many go on after a quarter of the steps; default: all")
    parser.add_argument("--whole", action="store_true", help="rank both starts by the whole prompt")
    parser.add_argument("--M", type=int, help="instead of the budget's")
    parser.add_argument("--steps", type=int, help="instead of the budget's")
    parser.add_argument("--out", type=Path, default=Path("composition"), help="folder of finished prompts")
    return parser.parse_args()


def main() -> None:
    """Measure, print a table, and write a sheet: single, bi-level, and AugCLIP alone."""
    given = _arguments()
    own = {name: value for name in ("M", "steps") if (value := getattr(given, name)) is not None}
    models, sizes = fd.load(), replace(fd.budget(given.budget), **own)
    name = f"{sizes.name}-{sizes.M}-{sizes.steps}-{given.seed}-{given.beta:g}-{given.keep or 'all'}"
    folder = given.out / (name + "-whole" * given.whole)
    folder.mkdir(parents=True, exist_ok=True)
    began, rows = time.monotonic(), []
    for words in PROMPTS[: given.limit]:
        done = folder / f"{_prompt(words).replace(' ', '-')}.pt"
        if not done.exists():
            row = {"single": single(models, _prompt(words), sizes, given.seed)}
            places: Sequence[Placement] = PLACEMENTS
            for name_of in RULES:
                row[name_of] = composed(models, words, sizes, given, name_of, places)
                places = [PLACEMENTS[row[name_of]["place"]]]
            torch.save({**row, "peak": peak()}, f"{done}.part")
            Path(f"{done}.part").replace(done)
        rows.append(torch.load(done, weights_only=True))
    ways = ("single", *RULES)
    hits = {way: [both(models, w, row[way]["image"]) for w, row in zip(PROMPTS, rows)] for way in ways}  # noqa: B905
    table: dict[str, Any] = {
        way: {
            "both nouns": share(hits[way]),
            "seconds": sum(row[way]["seconds"] for row in rows) / len(rows),
        }
        for way in ways
    }
    told = {way: {of: [row[way][of] for row in rows] for of in ("augclip", "lpips")} for way in RULES}
    for way, found in told.items():
        table[way]["at the winner's placement"] = numbers_line(AugCLIP=found["augclip"], LPIPS=found["lpips"])
    ours, alone = told["bilevel"], told["augclip"]
    table["AugCLIP lost, LPIPS saved"] = numbers_line(
        AugCLIP=[b - a for a, b in zip(ours["augclip"], alone["augclip"], strict=True)],
        LPIPS=[1 - a / b for a, b in zip(ours["lpips"], alone["lpips"], strict=True)],
    )
    more = [float(c) - s for s, c in zip(*(hits[way] for way in ("single", "bilevel")), strict=True)]
    table["both nouns more often than single"] = numbers_line(share=more)
    table["peak GB"] = max(row["peak"] for row in rows)
    print(json.dumps({"run": folder.name, "prompts": len(rows), **table}, indent=1, ensure_ascii=False))
    print(f"{(time.monotonic() - began) / 60:.1f} minutes in this call, {torch.get_num_threads()} threads")
    images = torch.cat([row[way]["image"] for way in ways for row in rows])
    torchvision.utils.save_image(images / 2 + 0.5, folder / "sheet.png", nrow=len(rows))


if __name__ == "__main__":
    main()
