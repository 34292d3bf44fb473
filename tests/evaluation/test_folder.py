"""Run folders: parts that are there whole or not at all, on a disk and elsewhere."""

from __future__ import annotations

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from fusedream_nb.evaluation.runs import Folder


def rows(*captions, method="random", seed=0):
    known = {"method": method, "seed": seed, "augclip": 0.25, "clip": [0.5, -0.5], "judge": [1.0]}
    return [
        {**known, "caption": caption, "picture": f"pictures/{method}/{i}.png", "seconds": 0.5}
        for i, caption in enumerate(captions)
    ]


@pytest.fixture(params=["disk", "memory"])
def folder(request, tmp_path):
    """A folder on the disk, and one at an fsspec address."""
    yield Folder(str(tmp_path / "run") if request.param == "disk" else "memory://a/run")
    if request.param == "memory":
        fsspec.filesystem("memory").rm("/a", recursive=True)


def test_records_come_back_as_they_were(folder):
    wanted = rows("a dog", 'a "ünusual" \n cat', seed=3)
    folder.add(wanted)
    assert folder.records("random", 3).to_pylist() == wanted
    assert folder.done("random", 3) == {"a dog", 'a "ünusual" \n cat'}
    assert folder.done("random", 0) == folder.done("other", 3) == set()


def test_a_block_made_twice_replaces_itself(folder):
    for _ in range(2):
        folder.add(rows("a", "b"))
        folder.add(rows("c"))
    assert sorted(folder.records("random", 0)["caption"].to_pylist()) == ["a", "b", "c"]


def test_one_folder_is_one_run(folder):
    folder.begin({"model": "stickers", "sizes": {"M": 4}})
    folder.begin({"model": "stickers", "sizes": {"M": 4}})
    with pytest.raises(ValueError, match="model 'stickers', not 'biggan'; take another folder"):
        folder.begin({"model": "biggan", "sizes": {"M": 4}})


def test_what_cannot_be_renamed_leaves_nothing(tmp_path, monkeypatch):
    """As on a disk that fills up."""
    folder = Folder(str(tmp_path))
    monkeypatch.setattr(LocalFileSystem, "mv", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        folder.add(rows("a"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_a_kill_left_half_written_is_swept_and_never_read(tmp_path):
    folder = Folder(str(tmp_path))
    folder.add(rows("a"))
    half = tmp_path / "records/random/0/.b.parquet.1234.part"
    folder.begin({})
    half.write_bytes(b"PAR1")
    assert folder.done("random", 0) == {"a"}
    folder.begin({})
    assert not half.exists() and folder.done("random", 0) == {"a"}


@pytest.mark.parametrize("cut", [0, 4, -1])
def test_half_a_part_is_named_with_the_way_out(tmp_path, cut):
    folder = Folder(str(tmp_path / ".hidden" / "run"))
    folder.add(rows("a"))
    assert folder.done("random", 0) == {"a"}
    (part,) = tmp_path.rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:cut])
    with pytest.raises(ValueError, match=f"random/0 is damaged; delete it, .*{part.name}"):
        folder.done("random", 0)


@pytest.mark.parametrize("text", ["", "[1]", "{", "7"])
def test_settings_that_are_none_are_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json should hold a run's settings as JSON"):
        Folder(str(tmp_path)).settings()
