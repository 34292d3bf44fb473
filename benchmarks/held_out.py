"""How often does the judge read a picture of a pair that the generator never saw?

    python benchmarks/held_out.py --budget gallery --limit 30 --out held-out

For each held-out (colour, noun) pair: FuseDream from the best k of the bank that ships; beside it, at equal
work, the best by AugCLIP of the bank and as many samples more as the steps cost, three each. The judge, which
was never climbed, reads the colour and the noun among all 168 pairs; its ceiling is what it reads in real
pictures of the pairs. A third reader, which had no part in the others' training, checks the judge.
"""

from __future__ import annotations

import torch
from rows import Row, best, fill, keep, parser, pool, settings, sheet, sizes, table

import fusedream_nb as fd
from fusedream_nb.method.latents import OverParameterised
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.pictures import real_things
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.notebook.claims import share
from fusedream_nb.notebook.measure import Reader, last, phrase
from training.readers import load_third

CEILING = 5  # real pictures of each pair
WAYS = {"luck": "best of equal work", "made": "FuseDream", "real": "real pictures"}


def main() -> None:
    """Measure what is missing, print the table, and write a sheet of luck and, below it, FuseDream."""
    given = parser(__doc__, "held-out", limit=30).parse_args()
    models, own = fd.load(), sizes(given)
    pairs = [f"{colour} {noun}" for colour, noun in sorted(world.GENERATOR_HELD_OUT)][: given.limit]
    prompts = [phrase(pair) for pair in pairs]
    read = Reader(models.judge, [f"{colour} {noun}" for colour in world.COLOURS for noun in world.NOUNS])
    readers = {"judge": read, "third": load_third().words}
    shipped = pool(models, prompts, own.start_copies, given.seed, own.M)
    more = pool(models, prompts, own.start_copies, given.seed + 1, 3 * own.steps)
    every, scores = Latent.cat([shipped[0], more[0]]), torch.cat([shipped[1], more[1]])

    def measure(i: int) -> Row:
        begin = OverParameterised.start(best(shipped[0], shipped[1][:, i : i + 1], own.k, own.M))
        made = last(fd.fusedream(prompts[i], models, seed=given.seed, budget=own, start=begin)).best_image
        with torch.no_grad():
            luck = models.generator.decode(every[scores[:, i].argmax()[None]])
        keep(given.out, pairs[i], luck=luck, made=made)
        scenes = [real_things(models, prompts[i : i + 1], seed=seed)[prompts[i]] for seed in range(CEILING)]
        pictures = {"luck": luck, "made": made, "real": torch.stack(scenes)}
        return {who: {way: reads(x) for way, x in pictures.items()} for who, reads in readers.items()}

    rows = fill(given.out, settings(given, models), {pair: i for i, pair in enumerate(pairs)}, measure)
    lines = []
    for way, name in WAYS.items():
        found = {
            who: [(row["item"].split(), text.split()) for row in rows for text in row[who][way]]
            for who in readers
        }
        right = {who: [want == got for want, got in pairs] for who, pairs in found.items()}
        each = ([w[j] == g[j] for w, g in found["judge"]] for j in (1, 0))
        sure = [a and b for a, b in zip(*right.values(), strict=True)]
        lines.append([name, *map(share, (right["judge"], *each, right["third"], sure))])
    print(table(["", "judge: both", "noun", "colour", "third reader: both", "both readers: both"], *lines))
    print(
        "misread:",
        ", ".join(
            f"{row['item']} as {row['judge']['made'][0]}"
            for row in rows
            if [row["item"]] != row["judge"]["made"]
        ),
    )
    sheet(given.out, pairs, "luck", "made")


if __name__ == "__main__":
    main()
