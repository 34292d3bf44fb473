"""Draw the picture at the top of the README: ``python tools/hero.py --budget quick docs/hero.png``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import fusedream_nb as fd

PROMPTS = (
    "a photo of a blue dog",
    "a photo of a purple lion",
    "a photo of a green elephant",
    "a photo of a blue mushroom",
    "a castle in the sky",
    "a photo of a red rabbit",
)


def main() -> None:
    """Draw for each prompt the best of M samples and, below it, FuseDream's best of three seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("--budget", default="quick")
    given = parser.parse_args()
    models, sizes = fd.load(), fd.budget(given.budget)
    luck, made = [], []
    for prompt in PROMPTS:
        rank = fd.AugCLIP(models.clip, prompt, sizes.start_copies)
        best, _ = fd.top_k(models.generator, rank, sizes.M, 1, torch.Generator().manual_seed(0))
        luck.append(models.generator.decode(best).detach())
        *_, last = fd.fusedream(prompt, models, seed=[0, 1, 2], budget=given.budget)
        made.append(last.best_image[last.best_score.argmax()][None])
    titles = [prompt.replace("a photo of ", "") for prompt in PROMPTS]
    alt = f"Best of {sizes.M} random samples, and below it FuseDream's picture, for: {', '.join(titles)}."
    fd.grid(luck + made, titles, alt=alt, columns=len(PROMPTS), world=models.world).save(given.target)


if __name__ == "__main__":
    main()
