"""After how many steps has a climb levelled off? AugCLIP and the judge's cosine, step by step.

    python benchmarks/levelling.py --steps 300 --copies 8 --limit 10 --out levelling

For each prompt, FuseDream from the k best of the bank that ships. AugCLIP is the best picture's so far, on
copies that no climb saw; the judge, which nobody climbs, reads the same picture.
"""

from __future__ import annotations

from statistics import fmean

import torch
from rows import Row, best, fill, mean, parser, pool, settings, sizes, table

import fusedream_nb as fd
from fusedream_nb.method.latents import OverParameterised
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.notebook.measure import Reader, fixed_score, phrase

MARKS = (0, 10, 20, 40, 60, 80, 100, 150, 200, 300, 500, 1000)


def main() -> None:
    """Measure what is missing, and print the means at the marks, with the share of the gain that is there."""
    given = parser(__doc__, "levelling", limit=10).parse_args()
    models, own = fd.load(), sizes(given)
    pairs = [f"{colour} {noun}" for colour, noun in sorted(world.GENERATOR_HELD_OUT)][
        :: max(1, 30 // given.limit)
    ]
    prompts = [phrase(pair) for pair in pairs[: given.limit]]
    shipped = pool(models, prompts, own.start_copies, given.seed, own.M)
    marks = [mark for mark in MARKS if mark <= own.steps]

    def measure(i: int) -> Row:
        start = OverParameterised.start(best(shipped[0], shipped[1][:, i : i + 1], own.k, own.M))
        score, read = (
            fixed_score(models.clip, prompts[i], 100),
            Reader(models.judge, prompts[i : i + 1], prompts[i : i + 1]),
        )
        found: dict[str, list[float]] = {"AugCLIP": [], "judge": []}
        for step in fd.fusedream(prompts[i], models, seed=given.seed, budget=own, start=start):
            if step.index in marks:
                with torch.no_grad():
                    found["AugCLIP"].append(float(score(step.best_image, torch.Generator())))
                found["judge"].append(float(read.cosines(step.best_image)))
        return found

    items = {prompt: i for i, prompt in enumerate(prompts)}
    rows = fill(given.out, settings(given, models), items, measure)
    gains = [[(each - row["AugCLIP"][0]) for each in row["AugCLIP"]] for row in rows]
    whole = fmean(gain[-1] for gain in gains)
    lines = [
        [
            str(mark),
            *(mean([row[name][j] for row in rows]) for name in ("AugCLIP", "judge")),
            f"{fmean(gain[j] for gain in gains) / whole:.0%}",
        ]
        for j, mark in enumerate(marks)
    ]
    print(table(["steps", "AugCLIP", "judge's cosine", "share of the gain"], *lines))


if __name__ == "__main__":
    main()
