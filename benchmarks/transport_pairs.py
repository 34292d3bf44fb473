"""What does transport add to the mean of two prompts? Pairs of nouns, on the same seeds, read by the judge.

    python benchmarks/transport_pairs.py --steps 150 --patches 16 --limit 20 --out pairs.jsonl

For each pair and loss: are both nouns the judge's first two of all, in the whole picture? And over 64 fixed
patches: the imbalance |n₁ - n₂| / 64 of the groups nearest to each prompt, the correlation of the two costs,
and the circular standard deviation of the arrows on the cost plane, in degrees. Pairs that stand in OUT are
not drawn again.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import deque
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method.latents import Pyramid
from fusedream_nb.method.scores import PatchScore
from fusedream_nb.method.views import Cutouts
from fusedream_nb.models import Models
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.captions import article
from fusedream_nb.models.stickers.reading import read_nouns
from fusedream_nb.notebook.claims import numbers_line, share

LOSSES = ("mean", "transport")
PLACES = 64


def pairs(n: int) -> list[tuple[str, str]]:
    """Return n pairs of different nouns, always the same ones."""
    drawn = random.Random(0)
    return [tuple(drawn.sample(list(world.NOUNS), 2)) for _ in range(n)]  # type: ignore[misc]


def fan(tangents: Tensor) -> float:
    """Return the circular standard deviation of arrows [n, 2], in degrees."""
    angle = torch.atan2(tangents[:, 1], tangents[:, 0])
    length = torch.polar(torch.ones_like(angle), angle).mean().abs().clamp(max=1)
    return float((-2 * length.log()).clamp(min=0).sqrt().rad2deg())


def measure(models: Models, words: tuple[str, str], loss: Any, given: argparse.Namespace) -> dict[str, Any]:  # noqa: ANN401
    """Draw one picture of two nouns, and say what it shows."""
    prompts = [f"a photo of {article(word)}" for word in words]
    sheet = torch.ones(1, 3, *models.generator.canvas)  # type: ignore[attr-defined]
    run = fd.transport(
        prompts,
        models,
        seed=given.seed,
        budget=given.budget,
        steps=given.steps,
        cutouts=Cutouts(given.patches, given.smallest),
        loss=loss,
        lr=given.lr,
        start=Pyramid(models.generator.encode(sheet.to(models.device))),  # type: ignore[attr-defined]
    )
    image = deque(run, maxlen=1).pop().best_image
    score = PatchScore(models.clip, prompts, Cutouts(PLACES, given.smallest), loss=loss)
    with torch.no_grad():
        best = read_nouns(models.judge, models.judge.encode_image(image)).topk(2).indices[0].tolist()
        seen = score.match(image, score.sample(1, torch.Generator().manual_seed(1)))
    costs = seen.costs[0].cpu()
    nearer = int((costs[:, 0] < costs[:, 1]).sum())
    return {
        "both": {world.NOUNS[i] for i in best} == set(words),
        "imbalance": abs(2 * nearer - PLACES) / PLACES,
        "correlation": float(torch.corrcoef(costs.T)[0, 1]),
        "fan": fan(seen.tangents[0].cpu()),
    }


def main() -> None:
    """Measure the pairs that are missing, then print the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="stickers/vqgan")
    parser.add_argument("--budget", default="gallery")
    parser.add_argument("--steps", type=int, help="instead of the budget's")
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--smallest", type=float, default=0.25)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("pairs.jsonl"))
    given = parser.parse_args()
    models = fd.load(given.model)
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    done = {tuple(row["words"]): row for row in map(json.loads, lines)}
    for words in pairs(given.limit):
        if words not in done:
            done[words] = {"words": words, **{loss: measure(models, words, loss, given) for loss in LOSSES}}
            with given.out.open("a") as file:
                file.write(json.dumps(done[words]) + "\n")
            print(done[words], flush=True)
    rows = [done[words] for words in pairs(given.limit)]
    for loss in LOSSES:
        told = {of: [row[loss][of] for row in rows] for of in ("imbalance", "correlation", "fan")}
        print(f"{loss}: both nouns in {share([row[loss]['both'] for row in rows])} · {numbers_line(**told)}")
    evener = [row["transport"]["imbalance"] < row["mean"]["imbalance"] for row in rows]
    print(f"groups more even by transport: {share(evener)}")
    print(
        f"costs anti-correlate by transport: {share([row['transport']['correlation'] < 0 for row in rows])}"
    )
    times = [row["transport"]["fan"] / max(row["mean"]["fan"], 1e-3) for row in rows]
    print(numbers_line(fan_times_the_mean_s=times))


if __name__ == "__main__":
    main()
