"""Captions to measure on: from files, or the sticker world's own test set."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusedream_nb.models.stickers.scenes import Scenes

TEST_SIZE = 3000
# All trainings draw from generators seeded 1000 k + a few fixed numbers, the report card from 900,000 on.
TEST_SEED = 20_140_888
COLUMNS = ("caption", "text", "prompt")  # of a CSV file: the first that is there
SHUFFLE_SEED = 30_000  # of COCO's order


def read(path: str | Path) -> list[str]:
    """Return the captions in a file, each once: COCO's ``captions_val2014.json``, a CSV, or text lines.

    COCO's come in a fixed random order, so that the first n are a sample of n; the others as they stand.
    A CSV has a column called caption, text or prompt. Raises ValueError for a file without captions.
    """
    path = Path(path)
    readers = {".json": _coco, ".csv": _csv}
    found = _once(readers.get(path.suffix.lower(), _lines)(path))
    if not found:
        raise ValueError(f"{path} holds no captions; it wants one a line, a CSV, or COCO's captions JSON.")
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8-sig").splitlines()


def _csv(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
        column = next((names[name] for name in COLUMNS if name in names), None)
        if column is None:
            raise ValueError(f"{path} has no column called {', '.join(COLUMNS)}; name one of its columns so.")
        return [row[column] or "" for row in rows]


def _coco(path: Path) -> list[str]:
    try:
        found = [str(row["caption"]) for row in json.loads(path.read_text("utf-8"))["annotations"]]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not COCO's captions file, which has a caption for each of its annotations ({error})."
        ) from error
    random.Random(SHUFFLE_SEED).shuffle(found)
    return found


def _once(captions: Iterable[str]) -> list[str]:
    """Return captions with their blanks tidied, without empty ones, each once, in order."""
    tidy = (" ".join(text.split()) for text in captions)
    return list(dict.fromkeys(text for text in tidy if text))


def sticker_scenes(n: int = TEST_SIZE) -> tuple[list[str], Scenes]:
    """Return the first n captions of the sticker test set, each once, and the scenes that they describe.

    The scenes are drawn by the law of the encoders' world from a seed that no training starts at, so no
    training saw them; a short caption ("a dog") was seen with other pictures. The first n are the same
    whatever n is. Raises ValueError for more than 3,000.
    """
    if not 1 <= n <= TEST_SIZE:
        raise ValueError(f"The sticker test set has {TEST_SIZE:,} captions, so {n} cannot be taken of it.")
    texts, scenes = _test_set()
    return list(texts[:n]), scenes[slice(n)]


@cache
def _test_set() -> tuple[tuple[str, ...], Scenes]:
    import torch

    from fusedream_nb.models.stickers.captions import caption
    from fusedream_nb.models.stickers.scenes import sample_scenes

    scenes = sample_scenes(2 * TEST_SIZE, torch.Generator().manual_seed(TEST_SEED))
    words = random.Random(TEST_SEED)
    first: dict[str, int] = {}
    for index in range(len(scenes)):
        first.setdefault(caption(scenes, index, words), index)
    kept = list(first.items())[:TEST_SIZE]
    return tuple(text for text, _ in kept), scenes[torch.tensor([index for _, index in kept])]


def captions(source: str | Path | None = None, limit: int | None = None) -> list[str]:
    """Return the captions of a file, or of the sticker test set for None; at most ``limit`` of them.

    Raises ValueError for a limit below 1 and as :func:`read` does.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"A limit of captions must be at least 1, not {limit}.")
    found = sticker_scenes()[0] if source is None else read(source)
    return found[:limit]
