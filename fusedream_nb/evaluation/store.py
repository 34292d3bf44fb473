"""A run folder, on a disk or at any fsspec address: records as Parquet parts, pictures beside them.

A part holds one block of captions by one method and seed. It is written under a temporary name and renamed
once its pictures are there, under a name that its captions give: a caption is done or not, and a block that
is made twice replaces itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyarrow import Table

RECORDS, PICTURES, RUN = "records", "pictures", "run.json"
AT_A_TIME = 256  # files that are asked for together: a remote store answers them side by side


@dataclass(frozen=True)
class Row:
    """What is known of one picture: scores are cosines, vectors of unit length, seconds its share's.

    ``picture`` is its path in the run folder; ``augclip`` is the climbed encoder's, on augmentations that
    no run has climbed, ``clip`` and ``judge`` are the two encoders' vectors.
    """

    caption: str
    method: str
    seed: int
    picture: str
    augclip: float
    clip: list[float]
    judge: list[float]
    seconds: float


class Store:
    """The folder of a run, at a local path or an fsspec address (s3://…, gs://…, memory://…)."""

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address
        self.files, root = fsspec.url_to_fs(address)
        self.root = root.rstrip("/")

    def write(self, name: str, data: bytes) -> None:
        """Write a file under a temporary name, then rename it; raises OSError where that cannot be."""
        folder, _, last = f"{self.root}/{name}".rpartition("/")
        part = f"{folder}/.{last}.{uuid.uuid4().hex}.part"
        self.files.makedirs(folder, exist_ok=True)
        try:
            self.files.pipe_file(part, data)
            self.files.mv(part, f"{folder}/{last}")
        except BaseException:
            if self.files.exists(part):
                self.files.rm_file(part)
            raise

    def read(self, names: Sequence[str]) -> list[bytes]:
        """Return the bytes of files; raises FileNotFoundError."""
        return self._fetch([f"{self.root}/{name}" for name in names])

    def settings(self) -> dict[str, Any] | None:
        """Return what the folder is a run of, None where it is new."""
        return json.loads(self.read([RUN])[0]) if self.files.exists(f"{self.root}/{RUN}") else None

    def settle(self, settings: dict[str, Any]) -> None:
        """Say what the folder is a run of; ValueError if it is a run of something else already."""
        old = self.settings()
        if old is None:
            self.write(RUN, json.dumps(settings, indent=1).encode())
            return
        for name, value in json.loads(json.dumps(settings)).items():
            if old.get(name) != value:
                raise ValueError(
                    f"{self.address} holds a run with {name} {old.get(name)!r}, not {value!r}; "
                    "take another folder, or the same settings."
                )

    def sweep(self) -> None:
        """Delete what killed workers left half-written; for the one that starts them."""
        for path in self._find(""):
            if path.endswith(".part"):
                self.files.rm_file(path)

    def add(self, rows: Sequence[Row]) -> None:
        """Append the records of one block, of one method and seed; their pictures are there already."""
        import pyarrow.parquet as pq

        head, file = rows[0], BytesIO()
        keys = "\n".join(row.caption for row in rows).encode()
        pq.write_table(_table(rows), file)
        folder = f"{RECORDS}/{head.method}/{head.seed}"
        self.write(f"{folder}/{hashlib.sha256(keys).hexdigest()[:20]}.parquet", file.getvalue())

    def parts(self, method: str, seed: int, columns: Sequence[str] | None = None) -> Iterator[Table]:
        """Yield the parts of a method and seed, one at a time, only some columns if so asked."""
        import pyarrow.parquet as pq

        paths = [path for path in self._find(f"{RECORDS}/{method}/{seed}") if path.endswith(".parquet")]
        for first in range(0, len(paths), AT_A_TIME):
            for data in self._fetch(paths[first : first + AT_A_TIME]):
                yield pq.read_table(BytesIO(data), columns=columns)

    def done(self, method: str, seed: int) -> set[str]:
        """Return the captions that a method has finished with a seed."""
        return {
            caption
            for part in self.parts(method, seed, ["caption"])
            for caption in part.column("caption").to_pylist()
        }

    def _fetch(self, paths: Sequence[str]) -> list[bytes]:
        return self.files.cat_ranges(list(paths), None, None, on_error="raise")

    def _find(self, name: str) -> list[str]:
        path = f"{self.root}/{name}".rstrip("/")
        self.files.invalidate_cache()
        return sorted(self.files.find(path)) if self.files.exists(path) else []


def _table(rows: Sequence[Row]) -> Table:
    import pyarrow as pa

    vector = pa.list_(pa.float32())
    kinds = {"seed": pa.int64(), "augclip": pa.float32(), "clip": vector, "judge": vector}
    kinds["seconds"] = pa.float32()
    names = Row.__dataclass_fields__
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    return pa.Table.from_pylist([asdict(row) for row in rows], schema)


def absolute(out: str) -> str:
    """Return a folder's address as every worker of this machine understands it."""
    return out if "://" in out else os.path.abspath(out)
