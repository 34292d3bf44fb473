"""How often does the judge read a picture of a pair that the generator never saw?

    python benchmarks/held_out.py --budget full --limit 30 --seed 0

For each held-out (colour, noun) pair: the best of M random samples by AugCLIP, and FuseDream from the
same start. The judge, which was never climbed, reads the colour and the noun among all 168 pairs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torchvision

import fusedream_nb as fd
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.captions import article
from fusedream_nb.models.stickers.report import read_pairs

TOGETHER = 5  # pictures in one batch


def main() -> None:
    """Measure, print a table, and write a sheet of the pictures: luck above, FuseDream below."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", default="full")
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="PNG of the pictures")
    given = parser.parse_args()
    models, sizes = fd.load(), fd.budget(given.budget)
    pairs = sorted(world.GENERATOR_HELD_OUT)[: given.limit]
    wanted = torch.tensor(
        [world.COLOURS.index(c) * len(world.NOUNS) + world.NOUNS.index(n) for c, n in pairs]
    )
    prompts = [f"a photo of {article(f'{c} {n}')}" for c, n in pairs]
    began, luck, made = time.monotonic(), [], []
    for first in range(0, len(prompts), TOGETHER):
        some = prompts[first : first + TOGETHER]
        for text in some:  # the best single sample of the M that the start looks at
            rank = fd.AugCLIP(models.clip, text, sizes.start_copies)
            best, _ = fd.top_k(models.generator, rank, sizes.M, 1, torch.Generator().manual_seed(given.seed))
            luck.append(models.generator.decode(best).detach())
        for step in fd.fusedream(some, models, seed=given.seed, budget=given.budget):
            last = step
        made.append(last.best_image)
    rows = {}
    for name, pictures in {"best of M": torch.cat(luck), "FuseDream": torch.cat(made)}.items():
        read = read_pairs(models.judge, models.judge.encode_image(pictures))
        nouns, colours = read % len(world.NOUNS), read // len(world.NOUNS)
        rows[name] = {
            "both": 100 * (read == wanted).float().mean().item(),
            "noun": 100 * (nouns == wanted % len(world.NOUNS)).float().mean().item(),
            "colour": 100 * (colours == wanted // len(world.NOUNS)).float().mean().item(),
        }
    print(json.dumps({"budget": given.budget, "pairs": len(pairs), "seed": given.seed, **rows}, indent=1))
    print(f"{(time.monotonic() - began) / len(pairs):.1f} s a pair, on {torch.get_num_threads()} threads")
    if given.sheet:
        both = torch.cat([torch.cat(luck), torch.cat(made)]) / 2 + 0.5
        torchvision.utils.save_image(both, given.sheet, nrow=len(pairs))


if __name__ == "__main__":
    main()
