"""How often does the judge read a picture of a pair that the generator never saw?

    python benchmarks/held_out.py --budget gallery --limit 30 --seed 0 --out held-out

For each held-out (colour, noun) pair: the best of M random samples by AugCLIP, and FuseDream from the
same start; all prompts look at the same M samples. The judge, which was never climbed, reads the colour
and the noun among all 168 pairs. Finished pictures are kept in OUT: the same command goes on after them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torchvision

import fusedream_nb as fd
from fusedream_nb.method import views
from fusedream_nb.method.bank import widened
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.fusedream import FIXED_SEED, START_SEED
from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.captions import article
from fusedream_nb.models.stickers.reading import read_pairs
from fusedream_nb.notebook.claims import share

TOGETHER = 5  # pictures in one batch


def starts(models: Models, prompts: list[str], sizes: Budget, seed: int) -> Latent:
    """Return the k best of M samples for each prompt [n, k, …], best first."""
    same = views.sample(1, sizes.start_copies, torch.Generator().manual_seed(START_SEED))
    rank = fd.AugCLIP(models.clip, prompts, sizes.start_copies, fixed=same)
    rng = torch.Generator().manual_seed(seed)
    return fd.top_k(models.generator, rank.table, sizes.M, sizes.k, rng)[0]


def draw(models: Models, prompts: list[str], basis: Latent, sizes: Budget, seed: int) -> torch.Tensor:
    """Return FuseDream's pictures [n, 3, h, w] from given starts."""
    fixed = views.sample(1, sizes.judged_copies, torch.Generator().manual_seed(FIXED_SEED))
    steps = fd.climb(
        models.generator,
        fd.AugCLIP(models.clip, prompts, sizes.copies),
        fd.OverParameterised.start(basis),
        [torch.Generator().manual_seed(seed) for _ in prompts],
        steps=sizes.steps,
        lr=sizes.lr,
        fixed_score=fd.AugCLIP(models.clip, prompts, sizes.judged_copies, fixed=fixed),
    )
    for step in steps:
        last = step
    return last.best_image


def main() -> None:
    """Measure, print a table, and write a sheet of the pictures: luck above, FuseDream below."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", default="gallery")
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("held-out"), help="folder of finished pictures")
    given = parser.parse_args()
    models = fd.load()
    sizes = widened(fd.budget(given.budget), models, [given.seed])
    pairs = sorted(world.GENERATOR_HELD_OUT)[: given.limit]
    prompts = [f"a photo of {article(f'{c} {n}')}" for c, n in pairs]
    folder = given.out / f"{given.budget}-{given.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    basis = starts(models, prompts, sizes, given.seed)
    with torch.no_grad():
        luck = models.generator.decode(basis.map(lambda t: t[:, 0]))
    made = []
    for first in range(0, len(prompts), TOGETHER):
        done = folder / f"{first:02}-{min(first + TOGETHER, len(prompts)):02}.pt"
        if not done.exists():
            rows = slice(first, first + TOGETHER)
            torch.save(draw(models, prompts[rows], basis[rows], sizes, given.seed), f"{done}.part")
            Path(f"{done}.part").replace(done)
        made.append(torch.load(done, weights_only=True))
    wanted = torch.tensor(
        [world.COLOURS.index(c) * len(world.NOUNS) + world.NOUNS.index(n) for c, n in pairs]
    )
    table = {}
    for name, pictures in {"best of M": luck, "FuseDream": torch.cat(made)}.items():
        with torch.no_grad():
            read = read_pairs(models.judge, models.judge.encode_image(pictures))
        table[name] = {
            "both": share(read == wanted),
            "noun": share(read % len(world.NOUNS) == wanted % len(world.NOUNS)),
            "colour": share(read // len(world.NOUNS) == wanted // len(world.NOUNS)),
        }
    print(json.dumps({"budget": given.budget, "seed": given.seed, **table}, indent=1, ensure_ascii=False))
    print(f"{(time.monotonic() - began) / 60:.1f} minutes in this call, {torch.get_num_threads()} threads")
    torchvision.utils.save_image(torch.cat([luck, *made]) / 2 + 0.5, folder / "sheet.png", nrow=len(pairs))


if __name__ == "__main__":
    main()
