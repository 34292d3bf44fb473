"""Captions to measure on: from files, or the sticker world's own test set."""

from __future__ import annotations

import codecs
import csv
import json
import random
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusedream_nb.models.stickers.scenes import Scenes

TEST_SIZE = 3000
# All trainings sample from generators seeded 1000 k + a few fixed numbers, the report card from 900,000 on.
TEST_SEED = 20_140_888
COLUMNS = ("caption", "text", "prompt", "title")  # what a column or key of captions may be called
DELIMITERS = ",;\t|"
SHUFFLE_SEED = 30_000  # of COCO's order
BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
Place = tuple[str, Any]  # where in a file, and the caption found there


def read(path: str | Path) -> list[str]:
    """Return the captions in a file, each once: COCO's JSON, JSON lines, a CSV or TSV, or text lines.

    The suffix tells which. A table's delimiter is the one that gives its first line a column called
    caption, text, prompt or title. COCO's captions come in a fixed random order, so that the first n are a
    sample of n; others as they stand. Text is UTF-8, or UTF-16 with a byte order mark. Rows without a
    caption are left out with a warning.
    Raises ValueError, with the file and the line, for what cannot be read without guessing.
    """
    path = Path(path)
    readers = {".json": _json, ".jsonl": _lines_of_json, ".ndjson": _lines_of_json}
    readers |= {".csv": _table, ".tsv": _table}
    try:
        found = _once(path, readers.get(path.suffix.lower(), _lines)(_decoded(path.read_bytes())))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}, {error}.") from error
    if not found:
        raise ValueError(f"{path} holds no captions; it needs one per line, a CSV, or COCO's captions JSON.")
    return found


def _decoded(data: bytes) -> str:
    """Return a file's text, or raise ValueError with the line of the first byte that is no text."""
    mark = next((mark for mark in BOMS if data.startswith(mark)), b"")
    try:
        text = data[len(mark) :].decode(BOMS.get(mark, "utf-8"))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].decode(error.encoding, "replace").count("\n") + 1
        raise ValueError(f"line {line}: this is not {error.encoding}; save the file as UTF-8") from error
    before, zero, _ = text.partition("\0")
    if zero:
        line = before.count("\n") + 1
        raise ValueError(f"line {line}: this is not text; save UTF-16 with a byte order mark, or UTF-8")
    return text


def _lines(text: str) -> Iterator[Place]:
    for number, line in enumerate(StringIO(text, newline=None), 1):
        if line.strip():
            yield f"line {number}", line


def _table(text: str) -> Iterator[Place]:
    """Yield the captions of a delimited table; all of its rows must have as many fields as its header."""
    header = next(StringIO(text, newline=None), "")
    heads = {mark: next(csv.reader([header], delimiter=mark)) for mark in DELIMITERS}
    with_captions = [mark for mark, names in heads.items() if set(map(_name, names)) & set(COLUMNS)]
    if not with_captions:
        raise ValueError(
            f"line 1: no column is called {', '.join(COLUMNS)}; rename one of {header.strip()!r}"
        )
    mark = max(with_captions, key=lambda mark: len(heads[mark]))
    names = [_name(name) for name in heads[mark]]
    column = _only("line 1", [name for name in names if name in COLUMNS])
    if len(names) == 1:  # no delimiter: whatever stands between quotes or in a line
        mark = "\x1f"
    rows = csv.reader(StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        for row in rows:
            if rows.line_num == 1 or not row:
                continue
            if len(row) != len(names):
                raise ValueError(
                    f"line {rows.line_num}: {len(row)} fields where the first line has {len(names)}; "
                    "put quotes around captions with the delimiter in them"
                )
            yield f"line {rows.line_num}", row[names.index(column)]
    except csv.Error as error:
        raise ValueError(
            f"line {rows.line_num}: its quotes are not closed as a CSV's are ({error})"
        ) from error


def _lines_of_json(text: str) -> Iterator[Place]:
    for place, line in _lines(text):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: this is no JSON ({error.msg})") from error
        yield place, _of(place, row)


def _json(text: str) -> Iterator[Place]:
    """Yield the captions of COCO's file, shuffled, or of a plain list."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: this is no JSON ({error.msg})") from error
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise ValueError("line 1: this is not COCO's captions file, which has a list called annotations")
    found = [(f"row {i}", _of(f"row {i}", row)) for i, row in enumerate(rows, 1)]
    if isinstance(content, dict):
        random.Random(SHUFFLE_SEED).shuffle(found)
    yield from found


def _of(place: str, row: Any) -> Any:  # noqa: ANN401  whatever JSON holds
    """Return the caption of a JSON row: the row itself, or the value of the one key that names captions."""
    if not isinstance(row, dict):
        return row
    names = {_name(name): value for name, value in row.items()}
    return names[_only(place, [name for name in names if name in COLUMNS])]


def _only(place: str, names: list[str]) -> str:
    """Return the name of the captions: "caption" itself, or the only other one that says so."""
    if COLUMNS[0] in names:
        return COLUMNS[0]
    if len(names) != 1:
        what = f"both {names[0]} and {names[1]} could be" if names else f"no key of {', '.join(COLUMNS)} is"
        raise ValueError(f"{place}: {what} the captions; rename the right one caption")
    return names[0]


def _name(name: str) -> str:
    return name.strip().lower()


def _once(path: Path, captions: Iterable[Place]) -> list[str]:
    """Return captions with their blanks tidied, without missing ones, each once, in order."""
    found: dict[str, None] = {}
    missing: list[str] = []
    for place, text in captions:
        if not isinstance(text, str | None) or any("\ud800" <= letter <= "\udfff" for letter in text or ""):
            raise ValueError(f"{place}: a caption is a text, not {text!r}")
        if tidy := " ".join((text or "").split()):
            found[tidy] = None
        else:
            missing.append(place)
    if missing and found:
        warnings.warn(
            f"{path}: {len(missing)} rows have no caption and are left out, first {missing[0]}.", stacklevel=3
        )
    return list(found)


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
