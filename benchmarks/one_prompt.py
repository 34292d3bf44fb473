"""How often do the judge and a third reader see the noun that was climbed in a VQGAN's space?

    python benchmarks/one_prompt.py --budget quick --out one-prompt
    python benchmarks/one_prompt.py --budget quick --out one-prompt-white --white --smallest 0.7

For each of the world's nouns: a run of transport with "a photo of a NOUN" as its only prompt, which is the
mean over patches (Eq. 1 of the transport paper), from random codes, or from those of a white sheet. The judge
chooses among all nouns; the third reader, which had no part in CLIP's or the judge's training, may also see
nothing. ``--vqgan`` is the folder of another VQGAN.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from rows import Row, fill, keep, parser, settings, sheet, sizes, table

import fusedream_nb as fd
from fusedream_nb.method.views import MIN_SIZE, Cutouts
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.scenes import sharp_scenes
from fusedream_nb.models.stickers.world import render
from fusedream_nb.models.vqgan import VQGAN
from fusedream_nb.notebook.claims import share
from fusedream_nb.notebook.measure import Reader, last, load_vqgan, phrase
from training.readers import load_third

WAYS = {"start": "the start", "made": "climbed", "again": "real pictures through the VQGAN"}


def main() -> None:
    """Measure what is missing, print the table, and write a sheet of starts and, below them, climbs."""
    options = parser(__doc__, "one-prompt", budget="quick", limit=len(world.NOUNS))
    options.add_argument("--patches", type=int, default=16)
    options.add_argument("--lr", type=float, default=0.05)
    options.add_argument("--smallest", type=float, default=MIN_SIZE, help="patch, as a share of the side")
    options.add_argument("--white", action="store_true", help="begin at a white sheet")
    options.add_argument("--vqgan", type=Path, help="folder")
    given = options.parse_args()
    models, own = load_vqgan("stickers"), sizes(given)
    if given.vqgan:
        models = replace(models, generator=VQGAN.from_folder(given.vqgan))
    white = models.generator.encode(torch.ones(1, 3, *models.generator.canvas))
    judge, third = Reader(models.judge, world.NOUNS), load_third()
    scenes = sharp_scenes(2000, torch.Generator().manual_seed(given.seed))

    def measure(noun: str) -> Row:
        same = {"seed": given.seed, "budget": own, "cutouts": Cutouts(given.patches, given.smallest)}
        run = fd.transport([phrase(noun)], models, lr=given.lr, start=white if given.white else None, **same)
        one = scenes[(scenes.noun[:, 0] == world.NOUNS.index(noun)).nonzero()[:5, 0]]
        with torch.no_grad():
            pictures = {"start": next(run).image}
            real = models.generator.encode(render(one, models.generator.size))
            again = models.generator.decode(real)
        pictures["made"] = last(run).best_image
        keep(given.out, noun, **pictures)
        return {
            way: {"judge": judge(image), "third": [words.split(" ")[-1] for words in third.words(image)]}
            for way, image in {**pictures, "again": again}.items()
        }

    items = {noun: noun for noun in world.NOUNS[: given.limit]}
    asked = {name: getattr(given, name) for name in ("patches", "lr", "smallest", "white")}
    rows = fill(given.out, settings(given, models, **asked, vqgan=str(given.vqgan)), items, measure)
    lines = []
    for way, name in WAYS.items():
        seen = {
            who: [word == row["item"] for row in rows for word in row[way][who]] for who in ("judge", "third")
        }
        both = [a and b for a, b in zip(seen["judge"], seen["third"], strict=True)]
        lines.append([name, *map(share, (seen["judge"], seen["third"], both))])
    print(table(["", "judge", "third reader", "both"], *lines))
    sheet(given.out, list(items), "start", "made", columns=14)


if __name__ == "__main__":
    main()
