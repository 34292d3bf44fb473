"""A run's folder, on a disk or at any fsspec address: records as a Parquet dataset, pictures beside them.

A part holds one block of captions by one method and seed. It is written under a temporary name and renamed
once its pictures are there, under a name that its captions give: a caption is done or not, and a block that
is made twice replaces itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

RECORDS, PICTURES, RUN = "records", "pictures", "run.json"
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}  # that fsspec takes for an address
SCHEMA = pa.schema(
    {
        "caption": pa.string(),
        "method": pa.string(),
        "seed": pa.int64(),
        "picture": pa.string(),  # its path in the folder
        "augclip": pa.float32(),  # by the climbed encoder, on augmentations that no run has climbed
        "clip": pa.list_(pa.float32()),  # the climbed encoder's unit vector
        "judge": pa.list_(pa.float32()),  # the judge's
        "seconds": pa.float32(),  # the picture's share of its block's
    }
)


class Folder:
    """The folder of a run, at a local path or an fsspec address (s3://…, gs://…, memory://…).

    Raises ValueError for an address whose package is not installed.
    """

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address if "://" in address else os.path.abspath(address)  # for workers elsewhere
        try:
            self.files, root = fsspec.url_to_fs(self.address)
        except ImportError as error:
            package = PACKAGES.get(address.partition("://")[0], "the package of its kind")
            raise ValueError(f"{address}: {error}; python -m pip install {package}.") from error
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
        """Return the bytes of files, fetched side by side; raises FileNotFoundError."""
        return self.files.cat_ranges([f"{self.root}/{name}" for name in names], None, None, on_error="raise")

    def settings(self) -> dict[str, Any]:
        """Return what the folder is a run of, {} where it is new; ValueError for a damaged file."""
        if not self.files.exists(f"{self.root}/{RUN}"):
            return {}
        try:
            return dict(json.loads(self.read([RUN])[0]))
        except (ValueError, TypeError) as error:
            what = f"{self.address}/{RUN} should hold a run's settings as JSON"
            raise ValueError(f"{what} ({error}); take another folder.") from error

    def begin(self, settings: dict[str, Any]) -> None:
        """Say what the folder is a run of, and delete what killed workers left half-written.

        Raises ValueError if it is a run of something else already.
        """
        old = self.settings()
        for name, value in json.loads(json.dumps(settings)).items():
            if old and old.get(name) != value:
                raise ValueError(
                    f"{self.address} holds a run with {name} {old.get(name)!r}, not {value!r}; "
                    "take another folder, or the same settings."
                )
        if not old:
            self.write(RUN, json.dumps(settings, indent=1).encode())
        self.files.invalidate_cache()
        for path in self.files.find(self.root):
            if path.endswith(".part"):
                self.files.rm_file(path)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append the records of one block, of one method and seed; their pictures are there already."""
        head, file = rows[0], BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), file)
        name = hashlib.sha256("\n".join(row["caption"] for row in rows).encode()).hexdigest()[:20]
        self.write(f"{RECORDS}/{head['method']}/{head['seed']}/{name}.parquet", file.getvalue())

    def records(self, method: str, seed: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the records of a method and seed, all columns or some; ValueError for a damaged part."""
        root = f"{self.root}/{RECORDS}/{method}/{seed}"
        self.files.invalidate_cache()
        if not self.files.exists(root):
            return SCHEMA.empty_table()
        try:  # what is half-written begins with a dot, and datasets pass over it
            return ds.dataset(root, SCHEMA, "parquet", self.files).to_table(columns and list(columns))
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's, not Parquet's
                raise
            what = f"A part of the records in {root} is damaged; delete it"
            raise ValueError(f"{what}, and the same command makes its pictures again ({error}).") from error

    def done(self, method: str, seed: int) -> set[str]:
        """Return the captions that a method has finished with a seed."""
        return set(self.records(method, seed, ["caption"])["caption"].to_pylist())
