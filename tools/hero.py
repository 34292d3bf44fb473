"""Draw the picture at the top of the README: ``python tools/hero.py --budget quick docs/hero.png``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import fusedream_nb as fd
from fusedream_nb.method.bank import widened
from fusedream_nb.notebook.measure import last, start_score

PROMPTS = (
    "a photo of a blue dog",
    "a photo of a purple lion",
    "a photo of a green elephant",
    "a photo of a blue mushroom",
    "a castle in the sky",
    "a photo of a red rabbit",
)


def main() -> None:
    """Draw for each prompt the best of the samples that a run starts from and, below it, FuseDream's picture.

    Both are of seed 0, whose bank ships.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("--budget", default="quick")
    given = parser.parse_args()
    models = fd.load()
    sizes = widened(fd.budget(given.budget), models, [0])
    luck, made = [], []
    for prompt in PROMPTS:
        rank = start_score(models.clip, prompt, sizes.start_copies).table
        best, _ = fd.top_k(models.generator, rank, sizes.M, 1, torch.Generator().manual_seed(0))
        luck.append(models.generator.decode(best.map(lambda t: t[0])).detach())
        made.append(last(fd.fusedream(prompt, models, seed=0, budget=given.budget)).best_image)
    titles = [prompt.replace("a photo of ", "") for prompt in PROMPTS]
    alt = f"Best of {sizes.M} random samples, and below it FuseDream's picture, for: {', '.join(titles)}."
    fd.grid(luck + made, titles, alt=alt, columns=len(PROMPTS), world=models.world).save(given.target)


if __name__ == "__main__":
    main()
