"""Captions to measure on: from files, or the sticker world's own test set."""

from __future__ import annotations

import codecs
import csv
import json
import random
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from fusedream_nb.models.stickers.captions import caption
from fusedream_nb.models.stickers.scenes import Scenes, sample_scenes

TEST_SIZE = 3000
# All trainings sample from generators seeded 1000 k + a few fixed numbers, the report card from 900,000 on.
TEST_SEED = 20_140_888
COLUMNS = ("caption", "text", "prompt", "title")  # what a column or key of captions may be called
DELIMITERS = ",;\t|"
SHUFFLE_SEED = 30_000  # of COCO's order
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
Row = tuple[str, Any]  # where in a file, and what stands there: a caption, or fields by name


def read(path: str | Path) -> list[str]:
    """Return the captions in a file, each once: COCO's JSON, JSON lines, a CSV or TSV, or text lines.

    A table's captions are its column caption, text, prompt or title. COCO's come in a fixed random order, so
    that the first n are a sample. Text is UTF-8, or UTF-16 with a byte order mark. Rows without a caption are
    left out with a warning. Raises ValueError with the file and the line for what would take a guess.
    """
    path, missing = Path(path), []
    kinds = {".json": _json, ".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _table, ".tsv": _table}
    found: dict[str, None] = {}
    try:
        for place, row in kinds.get(path.suffix.lower(), _lines)(_decoded(path.read_bytes())):
            text = row[_key(place, list(row))] if isinstance(row, dict) else row
            if not isinstance(text, str | None) or any("\ud800" <= c <= "\udfff" for c in text or ""):
                raise ValueError(f"{place}: a caption is a text, not {text!r}")
            if tidy := " ".join((text or "").split()):
                found[tidy] = None
            else:
                missing.append(place)
    except ValueError as error:
        raise ValueError(f"{path}, {error}.") from error
    if not found:
        raise ValueError(f"{path} holds no captions; it needs one per line, a CSV, or COCO's captions JSON.")
    if missing:
        left_out = f"{len(missing)} rows have no caption and are left out, first {missing[0]}"
        warnings.warn(f"{path}: {left_out}.", stacklevel=2)
    return list(found)


def _key(place: str, names: Sequence[str]) -> str:
    """Return the name of the captions: "caption" itself, or the only other one that says so."""
    known = [name.strip().lower() for name in names]
    found = [name for name in COLUMNS if name in known]
    if not found:
        raise ValueError(f"{place}: no column is called {', '.join(COLUMNS)}; call the captions' one caption")
    if found[0] != COLUMNS[0] and len(found) > 1:
        raise ValueError(f"{place}: both {' and '.join(found)} could be the captions; call theirs caption")
    if known.count(found[0]) > 1:
        raise ValueError(f"{place}: several columns are called {found[0]}; leave one of them")
    return names[known.index(found[0])]


def _decoded(data: bytes) -> str:
    """Return a file's text, or raise ValueError with the line of the first byte that is no text."""
    try:
        text = data.decode("utf-16" if data.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].decode(error.encoding, "replace").count("\n") + 1
        raise ValueError(f"line {line}: this is not {error.encoding}; save the file as UTF-8") from error
    before, zero, _ = text.partition("\0")
    if zero:
        line = before.count("\n") + 1
        raise ValueError(f"line {line}: this is not text; save UTF-16 with a byte order mark, or UTF-8")
    return text


def _lines(text: str) -> Iterator[Row]:
    lines = enumerate(StringIO(text, newline=None), 1)
    return ((f"line {number}", line) for number, line in lines if line.strip())


def _table(text: str) -> Iterator[Row]:
    """Yield the rows of a delimited table; all of them must have as many fields as its header."""
    header = next(StringIO(text, newline=None), "")
    heads = {mark: next(csv.reader([header], delimiter=mark)) for mark in DELIMITERS}
    known = {mark: any(name.strip().lower() in COLUMNS for name in heads[mark]) for mark in DELIMITERS}
    mark = max(DELIMITERS, key=lambda mark: (known[mark], len(heads[mark])))
    names = heads[mark]
    key = names.index(_key("line 1", names))
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    # Where there is one column there is no delimiter: a caption is whatever stands in quotes or in a line.
    rows = csv.reader(StringIO(text, newline=""), delimiter=mark if names[1:] else "\x1f", strict=True)
    try:
        for row in rows:
            if rows.line_num == 1 or not row:
                continue
            if len(row) != len(names):
                what = f"line {rows.line_num}: {len(row)} fields where the first line has {len(names)}"
                raise ValueError(f"{what}; put quotes around captions with the delimiter in them")
            yield f"line {rows.line_num}", row[key]
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: its quotes do not close as a CSV's do ({error})") from error


def _jsonl(text: str) -> Iterator[Row]:
    return ((place, _parsed(line.strip(), int(place.split()[1]))) for place, line in _lines(text))


def _json(text: str) -> Iterator[Row]:
    """Return the rows of COCO's file, shuffled, or of a plain list."""
    content = _parsed(text, 1)
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise ValueError("line 1: this is not COCO's captions file, which has a list called annotations")
    found = [(f"row {i}", row) for i, row in enumerate(rows, 1)]
    if isinstance(content, dict):
        random.Random(SHUFFLE_SEED).shuffle(found)
    return iter(found)


def _parsed(text: str, first: int) -> Any:  # noqa: ANN401
    """Return what JSON says, which begins at a line of a file."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        line, why = getattr(error, "lineno", 1), getattr(error, "msg", "brackets in brackets")
        raise ValueError(f"line {first + line - 1}: this is no JSON ({why})") from error


def sticker_scenes(n: int = TEST_SIZE) -> tuple[list[str], Scenes]:
    """Return the first n captions of the sticker test set, each once, and the scenes that they describe.

    No training saw the scenes; a short caption ("a dog") was seen with other pictures. The first n are the
    same whatever n is. Raises ValueError for more than 3,000.
    """
    if not 1 <= n <= TEST_SIZE:
        raise ValueError(f"The sticker test set has {TEST_SIZE:,} captions, so {n} cannot be taken of it.")
    texts, scenes = _test_set()
    return list(texts[:n]), scenes[slice(n)]


@cache
def _test_set() -> tuple[tuple[str, ...], Scenes]:
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
    found = sticker_scenes(limit or TEST_SIZE)[0] if source is None else read(source)
    return found[:limit]
