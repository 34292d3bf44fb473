"""Run folders: parts that are there whole or not at all, on a disk and elsewhere."""

from __future__ import annotations

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from fusedream_nb.evaluation.store import Row, Store


def rows(*captions, method="random", seed=0):
    return [
        Row(c, method, seed, f"pictures/{method}/{i}.png", 0.25, [0.5, -0.5], [1.0], 0.5)
        for i, c in enumerate(captions)
    ]


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    """A folder on the disk, and one at an fsspec address."""
    yield Store(str(tmp_path / "run") if request.param == "disk" else "memory://a/run")
    if request.param == "memory":
        fsspec.filesystem("memory").rm("/a", recursive=True)


def test_records_come_back_as_they_were(store):
    wanted = rows("a dog", 'a "ünusual" \n cat', seed=3)
    store.add(wanted)
    found = [Row(**row) for part in store.parts("random", 3) for row in part.to_pylist()]
    assert found == wanted
    assert store.done("random", 3) == {"a dog", 'a "ünusual" \n cat'}
    assert store.done("random", 0) == store.done("other", 3) == set()


def test_a_block_made_twice_replaces_itself(store):
    for _ in range(2):
        store.add(rows("a", "b"))
        store.add(rows("c"))
    assert sorted(c for part in store.parts("random", 0) for c in part.column("caption").to_pylist()) == [
        "a", "b", "c",
    ]  # fmt: skip


def test_one_folder_is_one_run(store):
    store.settle({"model": "stickers", "sizes": {"M": 4}})
    store.settle({"model": "stickers", "sizes": {"M": 4}})
    with pytest.raises(ValueError, match="model 'stickers', not 'biggan'; take another folder"):
        store.settle({"model": "biggan", "sizes": {"M": 4}})


def test_what_cannot_be_renamed_leaves_nothing(tmp_path, monkeypatch):
    """As on a disk that fills up."""
    store = Store(str(tmp_path))
    monkeypatch.setattr(LocalFileSystem, "mv", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.add(rows("a"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_a_kill_left_half_written_is_swept_and_never_read(tmp_path):
    store = Store(str(tmp_path))
    store.add(rows("a"))
    half = tmp_path / "records/random/0/.b.parquet.1234.part"
    half.write_bytes(b"PAR1")
    assert store.done("random", 0) == {"a"}
    store.sweep()
    assert not half.exists() and store.done("random", 0) == {"a"}
