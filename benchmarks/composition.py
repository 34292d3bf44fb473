"""What does composition add, and what does its second goal cost? Prompts of two objects, read by the judge.

    python benchmarks/composition.py --steps 60 --copies 8 --keep 1 --out composition

For each prompt: FuseDream's single picture; Algorithm 2 with the bi-level rule; and AugCLIP alone, from the
same start, at the placement that won. Foregrounds begin at the best k of the first half of the bank that
ships, backgrounds at those of the second half, single pictures at the best of both. The judge, which was
never climbed, reads the picture: both nouns must be its first two of all. Its ceiling is what it reads in
faultless pictures of the two, pasted at the placement that won. A third reader checks it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rows import Row, best, fill, keep, mean, parser, pool, settings, sheet, sizes, table

import fusedream_nb as fd
from fusedream_nb.method.barrier import BilevelRule, Rule, ScoreRule
from fusedream_nb.method.latents import OverParameterised
from fusedream_nb.method.placement import PLACEMENTS, Placement, Placements, paste
from fusedream_nb.models import Models
from fusedream_nb.models.pictures import real_things
from fusedream_nb.models.stickers.captions import article
from fusedream_nb.notebook.claims import share
from fusedream_nb.notebook.measure import Reader, last, nouns, phrase
from training.readers import Third, load_third

FOREGROUNDS = ("dog", "cat", "elephant", "butterfly", "rabbit", "bird", "penguin", "frog", "fox", "robot")
BACKGROUNDS = ("house", "church", "castle", "car", "tree", "sailboat")
RELATIONS = "on top of", "next to", "below"
PROMPTS = {  # foreground, relation, background: 30 in all
    f"{article(words[0])} {words[1]} {article(words[2])}": words
    for words in (
        (FOREGROUNDS[i % 10], RELATIONS[i // 10], BACKGROUNDS[(i + i // 10) % 6]) for i in range(30)
    )
}
CEILING = 5  # faultless pastes of each prompt
WAYS = {
    "single": "one picture",
    "pasted": "composed, bi-level, before blending",
    "bilevel": "composed, bi-level",
    "augclip": "composed, AugCLIP alone",
}


def pastes(models: Models, texts: Sequence[str], place: Placement) -> torch.Tensor:
    """Return real pictures of two things, one pasted over the other."""
    pairs = [[real_things(models, [text], seed=seed)[text] for text in texts] for seed in range(CEILING)]
    return torch.cat([paste(front[None], back[None], place) for front, back in pairs])


def main() -> None:
    """Measure what is missing, print the table, and write a sheet: single, bi-level, AugCLIP alone."""
    options = parser(__doc__, "composition", limit=30)
    options.add_argument("--beta", type=float, default=1.0)
    options.add_argument("--keep", type=int, help="so many go on after a quarter of the steps; default: all")
    given = options.parse_args()
    models, own = fd.load(), sizes(given)
    prompts, half = list(PROMPTS)[: given.limit], own.M // 2
    readers: dict[str, Reader | Third] = {
        name: Reader(getattr(models, name), nouns(models)) for name in ("judge", "clip")
    }
    readers["third"] = load_third()
    whole = pool(models, prompts, own.start_copies, given.seed, own.M)
    parts = {noun: i for i, noun in enumerate(nouns(models))}
    halves = pool(models, [phrase(noun) for noun in parts], own.start_copies, given.seed, own.M)

    def measure(prompt: str) -> Row:
        words, i = (PROMPTS[prompt][0], PROMPTS[prompt][2]), prompts.index(prompt)
        front, back = (
            OverParameterised.start(best(halves[0], halves[1][:, parts[w]][:, None], own.k, half, first))
            for w, first in zip(words, (0, half), strict=True)
        )
        begin = OverParameterised.start(best(whole[0], whole[1][:, i : i + 1], own.k, own.M))
        same = {"seed": given.seed, "budget": own}
        pictures = {"single": last(fd.fusedream(prompt, models, start=begin, **same)).best_image}
        row: Row = {"lpips": {}, "augclip_fixed": {}}
        rules: dict[str, Rule] = {"bilevel": BilevelRule(given.beta), "augclip": ScoreRule()}
        places: Sequence[Placement] = PLACEMENTS
        for way, rule in rules.items():
            where = Placements.of(places, given.keep)
            end = last(fd.compose(prompt, models, placements=where, rule=rule, start=(front, back), **same))
            pictures[way], won = end.blended(), end.winner
            pictures.setdefault("pasted", end.best_image[[won]])  # bi-level's, which is first
            row["augclip_fixed"][way], row["lpips"][way] = float(end.judged[won]), float(end.loss[won])
            places = [end.placements[won]]
        keep(given.out, prompt, **pictures)
        row["place"] = PLACEMENTS.index(places[0])
        pictures["real"] = pastes(models, [phrase(word) for word in words], places[0])
        for name, read in readers.items():
            row[name] = {way: read.top(image, 5) for way, image in pictures.items()}
        score = fd.CLIPScore(models.judge, prompt)
        with torch.no_grad():
            row["cosine"] = {way: score(image).tolist() for way, image in pictures.items()}
        return row

    shared = settings(given, models, beta=given.beta, keep=given.keep)
    report(fill(given.out, shared, {prompt: prompt for prompt in prompts}, measure))
    sheet(given.out, prompts, *WAYS)


def report(rows: list[Row]) -> None:
    """Print what was read, then what the second goal costs."""
    ways = WAYS | {"real": "faultless pastes"}

    def hits(reader: str, way: str, n: int) -> list[bool]:
        wanted = [{PROMPTS[row["item"]][i] for i in (0, 2)} for row in rows]
        return [
            set_ <= set(top[:n]) for set_, row in zip(wanted, rows, strict=True) for top in row[reader][way]
        ]

    lines = [
        [f"{name}: both nouns among its first {n}", *(share(hits(reader, way, n)) for way in ways)]
        for reader, name in (("judge", "judge"), ("third", "third reader"), ("clip", "the climbed CLIP"))
        for n in (2, 5)
    ]
    cosines = [mean([x for row in rows for x in row["cosine"][way]]) for way in ways]
    print(table(["", *ways.values()], *lines, ["judge: cosine with the whole prompt", *cosines]))
    more = [
        float(b) - a for a, b in zip(hits("judge", "single", 2), hits("judge", "bilevel", 2), strict=True)
    ]
    print("\nboth nouns, composed above single:", mean(more))
    scores = [row["augclip_fixed"]["augclip"] - row["augclip_fixed"]["bilevel"] for row in rows]
    losses = [1 - row["lpips"]["bilevel"] / row["lpips"]["augclip"] for row in rows]
    print("AugCLIP lost by the second goal:", mean(scores), "· LPIPS lower by", mean(losses))


if __name__ == "__main__":
    main()
