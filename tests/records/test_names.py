"""Names that are taken once: identity of a request, parallel writers, other people's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedream_nb.records import png
from fusedream_nb.records.record import Record, read_record, save

RECORD = Record(
    prompt="a dog", seed=0, model="stickers", budget="quick", M=8, k=2, steps=4, copies=2, lr=0.02,
    start_copies=2, judged_copies=2, device="cpu", dtype="float32", score=0.25, steps_done=4, texts=["a dog"],
)  # fmt: skip
IMAGE = torch.zeros(3, 8, 8)
WRITER = """
import json, sys, torch
from fusedream_nb.records.record import Record, save
values = json.loads(sys.argv[1])
film = {".gif": b"fusedream" + sys.argv[3].encode()}
print(save(torch.zeros(3, 8, 8), Record(**values), sys.argv[2], companions=film))
"""


@pytest.mark.parametrize(
    "other",
    [
        {"texts": ["a", "dog"]},  # a transport of two prompts that read alike when joined
        {"options": {"weights": [1, 2]}},
        {"lr": 0.1},
        {"clip": "another"},
        {"canvas": [64, 96]},
        {"knobs": [{"step": 1, "lr": 0.1}]},
        {"steps_done": 3},  # a shorter one never replaces
    ],
    ids=str,
)
def test_another_request_gets_another_name_and_the_same_one_its_own(tmp_path: Path, other: dict) -> None:
    first = save(IMAGE, RECORD, tmp_path)
    second = save(IMAGE, replace(RECORD, **other), tmp_path)
    assert (first.name, second.name) == ("a-dog-0.png", "a-dog-0_2.png")
    assert save(IMAGE, replace(RECORD, score=0.5), tmp_path) == first
    assert read_record(first).score == 0.5


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from([".png", ".json", ".gif", ".mp4"]), min_size=1), st.booleans())
def test_nobody_elses_file_is_touched(taken: set[str], saved_before: bool) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        folder = Path(name)
        if saved_before:
            save(IMAGE, RECORD, folder, companions={".gif": b"GIF fusedream"})
        theirs = {folder / f"a-dog-0{end}": f"mine {end}".encode() for end in taken}
        for path, data in theirs.items():
            path.write_bytes(data)
        path = save(IMAGE, RECORD, folder, companions={".gif": b"GIF fusedream 2"})
        assert path.name == "a-dog-0_2.png"
        assert all(path.read_bytes() == data for path, data in theirs.items())
        assert path.with_suffix(".gif").read_bytes().endswith(b"2")
        assert not list(folder.glob(".*"))


def test_our_own_companions_are_replaced_with_their_picture(tmp_path: Path) -> None:
    for text in (b"fusedream 1", b"fusedream 2"):
        path = save(IMAGE, RECORD, tmp_path, companions={".gif": text})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-dog-0.gif", "a-dog-0.json", "a-dog-0.png"]
    assert path.with_suffix(".gif").read_bytes() == b"fusedream 2"


def test_eight_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each asks for something else under the same name; all files of one name are one process's."""
    children = []
    for i in range(8):
        values = {**vars(RECORD), "lr": 0.01 * (i + 1)}
        argv = [sys.executable, "-c", WRITER, json.dumps(values), str(tmp_path), str(i)]
        children.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ}))
    paths = [Path(child.communicate()[0].strip()) for child in children]
    assert len(set(paths)) == 8
    for i, path in enumerate(paths):
        assert read_record(path).lr == 0.01 * (i + 1)
        assert json.loads(path.with_suffix(".json").read_text())["lr"] == 0.01 * (i + 1)
        assert path.with_suffix(".gif").read_bytes() == f"fusedream{i}".encode()
    assert len(list(tmp_path.iterdir())) == 24


@pytest.mark.parametrize("links", [True, False])
def test_threads_too_and_where_a_disk_has_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links")))
    with ThreadPoolExecutor(8) as pool:
        records = [replace(RECORD, lr=0.01 * (i + 1)) for i in range(16)]
        paths = list(pool.map(lambda record: save(IMAGE, record, tmp_path), records))
    assert len(set(paths)) == 16
    assert [read_record(path).lr for path in paths] == [record.lr for record in records]


def test_a_new_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        png.write({tmp_path / "a": b"1", tmp_path / "b": b"2"}, new=True)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_bytes() == b"theirs"
