"""Pictures of many captions by several methods, finished a block at a time, in any order."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fusedream_nb.evaluation.store import PICTURES, Row, Store

if TYPE_CHECKING:
    from torch import Tensor

    from fusedream_nb.method.budgets import Budget
    from fusedream_nb.models import Models

COPIES, COPIES_SEED = 12, 30_000_099  # of the augmentations that pictures are measured on


@dataclass(frozen=True)
class Plan:
    """What a run draws: each caption by each method with each seed, on ``threads`` threads a worker."""

    captions: list[str] = field(repr=False)
    methods: tuple[str, ...]
    sizes: Budget
    model: str = "stickers"
    device: str = "cpu"
    threads: int = 1
    seeds: tuple[int, ...] = (0,)

    def settings(self) -> dict[str, Any]:
        """Return what all records of a folder share; captions, methods and seeds may be added later."""
        from fusedream_nb.evaluation.contest import AT_ONCE

        return {
            "model": self.model,
            "device": self.device,
            "threads": self.threads,
            "together": AT_ONCE,
            "sizes": asdict(self.sizes),
            "weights": _published(self.model),
        }


def _published(model: str) -> dict[str, str | None]:
    """Return the hashes that a model's files, and those of its encoders, should have: the same everywhere."""
    from fusedream_nb.models.weights import CLIP, JUDGE, catalogue

    head = model.partition("/")[0]
    names = (head,) if head == "stickers" else (model, CLIP, JUDGE)
    rows = [row for row in catalogue() if row.name in names]
    return {f"{row.name}/{file.name}": file.sha256 for row in rows for file in row.files}


@dataclass(frozen=True)
class Block:
    """A few captions that one worker draws together, by one method with one seed."""

    method: str
    seed: int
    captions: tuple[str, ...]


def todo(plan: Plan, store: Store) -> list[Block]:
    """Return the blocks that a folder lacks: all methods of some captions, then those of the next."""
    from fusedream_nb.evaluation.contest import AT_ONCE

    missing: list[tuple[int, Block]] = []
    for seed in plan.seeds:
        for method in plan.methods:
            done = store.done(method, seed)
            left = [caption for caption in plan.captions if caption not in done]
            for first in range(0, len(left), AT_ONCE):
                missing.append((first, Block(method, seed, tuple(left[first : first + AT_ONCE]))))
    return [block for _, block in sorted(missing, key=lambda pair: pair[0])]


def make(block: Block, plan: Plan, models: Models, store: Store) -> int:
    """Draw and measure a block, write its pictures and then its records; return how many these are."""
    import torch

    from fusedream_nb.evaluation.contest import draw
    from fusedream_nb.records import png

    torch.set_num_threads(plan.threads)  # sums depend on it
    began = time.monotonic()
    with warnings.catch_warnings(action="ignore"):  # of unknown words, one a caption
        images = draw(block.method, block.captions, models, plan.sizes, block.seed)
        seconds = (time.monotonic() - began) / len(images)
        rounded = torch.stack([torch.from_numpy(png.levels(image)) for image in images])
        marks = measure(rounded.permute(0, 3, 1, 2).to(models.device) / 127.5 - 1, block.captions, models)
    rows = []
    for image, caption, (augclip, clip, judge) in zip(images, block.captions, marks, strict=True):
        row = Row(caption, block.method, block.seed, _path(caption, block), augclip, clip, judge, seconds)
        store.write(row.picture, png.encode(image, _text(row)))
        rows.append(row)
    store.add(rows)
    return len(rows)


def measure(
    images: Tensor, captions: Sequence[str], models: Models
) -> list[tuple[float, list[float], list[float]]]:
    """Return AugCLIP, the climbed encoder's vector and the judge's, of pictures [n, 3, h, w] in [-1, 1].

    One picture at a time, so that the numbers do not depend on what stands beside it.
    """
    import torch

    from fusedream_nb.method import augment
    from fusedream_nb.method.scores import AugCLIP

    rng = torch.Generator().manual_seed(COPIES_SEED)
    fixed = augment.draw(1, COPIES, rng)
    rows = []
    with torch.no_grad():
        for image, caption in zip(images.split(1), captions, strict=True):
            score = float(AugCLIP(models.clip, caption, COPIES, fixed=fixed)(image, rng))
            clip, judge = (encoder.encode_image(image)[0].tolist() for encoder in (models.clip, models.judge))
            rows.append((score, clip, judge))
    return rows


def _path(caption: str, block: Block) -> str:
    from fusedream_nb.records.record import slug

    return f"{PICTURES}/{block.method}/{slug(caption, block.seed)}.png"


def _text(row: Row) -> str:
    """Return what stands in a picture's PNG."""
    return json.dumps({name: getattr(row, name) for name in ("caption", "method", "seed", "augclip")})


def run_here(plan: Plan, store: Store) -> Iterator[tuple[int, int]]:
    """Make what is missing, one block after another; yield how many pictures are made, and of how many.

    Stopped anywhere, killed too, it goes on where it was. Raises ValueError for a folder of another run.
    """
    from fusedream_nb.models import load

    store.settle(plan.settings())
    store.sweep()
    blocks = todo(plan, store)
    made, total = 0, sum(len(block.captions) for block in blocks)
    yield made, total
    models = load(plan.model, device=plan.device) if blocks else None
    for block in blocks:
        assert models is not None
        made += make(block, plan, models, store)
        yield made, total
