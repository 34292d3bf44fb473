"""Fewer copies a step, more steps: which reaches the better picture by the same arithmetic?

    python benchmarks/copies.py --out copies.jsonl                      # 10 prompts, 5 seeds
    python benchmarks/copies.py --out copies.jsonl --prompts 1 --seeds 1

The arithmetic is that of the papers' shapes, where an augmented copy costs ViT-B/32 4.4 GMAC and a picture
BigGAN-256 60; what runs is the stickers. Each number of copies gets what ``--steps`` with 12 copies cost, and
the best picture so far is measured after a quarter, half and all of it: by the judge, and by AugCLIP on
copies that no climb has seen. Starts and fixed copies are the same for all. Appends a line of JSON for each
prompt and number of copies; started again, it goes on after them. Then prints the table.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from ablation import PROMPTS

import fusedream_nb as fd
from fusedream_nb.models import Models
from fusedream_nb.notebook.measure import fixed_score

COPIES = (4, 8, 12, 24, 50)
GMAC_COPY, GMAC_PICTURE = 4.4, 60.0
PARTS = (0.25, 0.5, 1.0)  # of the arithmetic
UNSEEN = 10_000  # the seed of copies that no climb has seen
Row = dict[str, Any]


def steps_of(copies: int, steps: int) -> int:
    """Return how many steps with so many copies cost what ``steps`` with 12 do."""
    return round(steps * (GMAC_PICTURE + GMAC_COPY * 12) / (GMAC_PICTURE + GMAC_COPY * copies))


def measure(prompt: str, copies: int, models: Models, given: argparse.Namespace) -> list[Row]:
    """Climb for a prompt with all seeds; return a row for each part of the arithmetic."""
    sizes = replace(fd.budget("gallery"), M=given.M, copies=copies, steps=steps_of(copies, given.steps))
    moments = {round(part * sizes.steps): part for part in PARTS}
    scores = {
        "judge": fd.CLIPScore(models.judge, prompt),
        "augclip": fixed_score(models.clip, prompt, 50, UNSEEN),
    }
    rows = []
    for step in fd.fusedream(prompt, models, seed=list(range(given.seeds)), budget=sizes):
        if step.index in moments:
            with torch.no_grad():
                found = {
                    name: score(step.best_image, torch.Generator()).tolist() for name, score in scores.items()
                }
            rows.append(
                {"prompt": prompt, "copies": copies, "part": moments[step.index], "steps": step.index} | found
            )
    return rows


def table(rows: list[Row]) -> str:
    """Return the means over prompts and seeds, ± a standard error over prompts, as Markdown."""
    lines = [
        "| copies | steps |"
        + "".join(f" {name} at {part:g} |" for part in PARTS for name in ("judge", "AugCLIP"))
    ]
    lines.append("|---" * (2 + 2 * len(PARTS)) + "|")
    for copies in COPIES:
        own = [row for row in rows if row["copies"] == copies]
        shown = [
            _mean([fmean(r[n]) for r in own if r["part"] == part])
            for part in PARTS
            for n in ("judge", "augclip")
        ]
        lines.append(f"| {copies} | {max((r['steps'] for r in own), default=0)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else "–"
    return f"{fmean(values):.4f} ± {stdev(values) / len(values) ** 0.5:.4f}"


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSONL")
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="with 12 copies")
    parser.add_argument("--M", type=int, default=400, help="samples of a start")
    given = parser.parse_args()
    settings = {"seeds": given.seeds, "steps": given.steps, "M": given.M}
    text = given.out.read_text("utf-8") if given.out.exists() else ""
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    if any(line["settings"] != settings for line in lines):
        raise SystemExit(f"{given.out} is of other settings; choose another file.")
    given.out.write_text("".join(json.dumps(line) + "\n" for line in lines))  # without half a line
    done = {(line["rows"][0]["prompt"], line["rows"][0]["copies"]) for line in lines}
    models = fd.load("stickers")
    for prompt, copies in ((prompt, copies) for prompt in PROMPTS[: given.prompts] for copies in COPIES):
        if (prompt, copies) not in done:
            lines.append({"settings": settings, "rows": measure(prompt, copies, models, given)})
            with given.out.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(f"{prompt}: {copies} copies", flush=True)
    print(table([row for line in lines for row in line["rows"]]))


if __name__ == "__main__":
    main()
