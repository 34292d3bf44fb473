"""Fewer copies a step, more steps: which reaches the better picture by the same arithmetic?

    python benchmarks/copies.py --steps 100 --out copies             # 10 prompts, 5 seeds

The arithmetic is that of the papers' shapes, where an augmented copy costs ViT-B/32 4.4 GMAC and a picture
BigGAN-256 60; what runs is the stickers. Each number of copies gets what ``--steps`` with 12 copies cost, and
the best picture so far is measured after each eighth of it: by the judge, and by AugCLIP on copies that no
climb has seen. Each seed starts from a part of its own of the bank that ships; starts and fixed copies are
the same for all numbers of copies. Given the seconds of a step at real shapes (``real_shapes.py biggan-256
--fewer 4 8 12 24``), it says how much sooner ours is where the plain loop with 50 copies ends.
"""

from __future__ import annotations

from statistics import fmean

import torch
from ablation import PROMPTS, UNSEEN
from rows import POOL, Row, fill, mean, parser, settings, sizes, table

import fusedream_nb as fd
from fusedream_nb.notebook.measure import Dealt, fixed_score

COPIES = (4, 8, 12, 24, 50)
GMAC_COPY, GMAC_PICTURE = 4.4, 60.0
PARTS = 8  # of the arithmetic, after each of which is measured
SHOWN = (2, 4, 8)
MEASURES = {"judge": "judge", "augclip": "AugCLIP"}


def steps_of(copies: int, steps: int) -> int:
    """Return how many steps with so many copies cost what ``steps`` with 12 do."""
    return round(steps * (GMAC_PICTURE + GMAC_COPY * 12) / (GMAC_PICTURE + GMAC_COPY * copies))


def reached(curve: list[float], goal: float) -> float | None:
    """Return after which share of the work a curve, a value after each part of it, first reaches a goal.

    Between two parts it is taken as straight, and before the first as steep as up to the second.
    """
    place = next((i for i, value in enumerate(curve) if value >= goal), None)
    if place is None:
        return None
    low, high = (place - 1, place) if place else (0, 1)
    rise = curve[high] - curve[low]
    inside = (goal - curve[low]) / rise if rise > 0 else float(place)
    return max(0.0, low + 1 + inside) / len(curve)


def main() -> None:
    """Measure what is missing, and print the tables."""
    options = parser(__doc__, "copies", limit=len(PROMPTS))
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--plain-step", type=float, help="seconds of the plain loop's step, 50 copies")
    options.add_argument("--our-steps", type=float, nargs=len(COPIES), help=f"of ours with {COPIES}")
    given = options.parse_args()
    models, own, prompts = fd.load(), sizes(given), list(PROMPTS[: given.limit])
    seeds = [given.seed + i for i in range(given.seeds)]
    dealt = Dealt(models, POOL, own.start_copies, seeds)

    def measure(item: tuple[int, int]) -> Row:
        i, copies = item
        total = steps_of(copies, own.steps)
        moments = [round(total * part / PARTS) for part in range(1, PARTS + 1)]
        seen = {
            "judge": fd.CLIPScore(models.judge, prompts[i]),
            "augclip": fixed_score(models.clip, prompts[i], 50, UNSEEN),
        }
        row: Row = {"copies": copies, "steps": total, **{name: [] for name in seen}}
        run = fd.fusedream(
            prompts[i],
            models,
            seed=seeds,
            budget=own,
            start=dealt.start([prompts[i]] * len(seeds), seeds, own.k),
            steps=total,
            copies=copies,
        )
        for step in run:
            for _ in range(moments.count(step.index)):
                with torch.no_grad():
                    for name, score in seen.items():
                        row[name].append(score(step.best_image, torch.Generator()).tolist())
        return row

    items = {f"{prompts[i]}, {copies} copies": (i, copies) for i in range(len(prompts)) for copies in COPIES}
    shared = settings(given, models, seeds=given.seeds)
    report(fill(given.out, shared, items, measure), given.plain_step, given.our_steps)


def report(rows: list[Row], plain: float | None, ours: list[float] | None) -> None:
    """Print the means over prompts with their intervals, then how soon each reaches what 50 copies do."""
    lines, curves, steps = [], {}, {}
    for copies in COPIES:
        own = [row for row in rows if row["copies"] == copies]
        steps[copies] = own[0]["steps"]
        curves[copies] = {
            of: [fmean(fmean(row[of][part]) for row in own) for part in range(PARTS)] for of in MEASURES
        }
        shown = [mean([fmean(row[of][part - 1]) for row in own]) for part in SHOWN for of in MEASURES]
        lines.append([str(copies), str(steps[copies]), *shown])
    head = [f"{name} at {part / PARTS:g}" for part in SHOWN for name in MEASURES.values()]
    print(table(["copies", "steps", *head], *lines), "\n")
    lines = []
    for number, copies in enumerate(COPIES):
        line = [str(copies)]
        for of in MEASURES:
            part = reached(curves[copies][of], curves[COPIES[-1]][of][-1])
            line.append("never" if part is None else f"{part * steps[copies]:.0f} steps, {part:.0%}")
            if plain and ours:
                climb = (
                    None
                    if part is None
                    else plain * steps[COPIES[-1]] / (ours[number] * part * steps[copies])
                )
                line.append("–" if climb is None else f"{climb:.1f}")
        lines.append(line)
    times = ["times the plain climb's speed"] * bool(plain and ours)
    print(
        table(
            ["copies", *(c for name in MEASURES.values() for c in [f"{name} of 50 copies after", *times])],
            *lines,
        )
    )


if __name__ == "__main__":
    main()
