"""A run of Table 1: its pictures and records in a folder, made a block at a time, here or by Ray.

The folder is on a disk or at any fsspec address: records as a Parquet dataset, pictures beside them. A part
holds one block of captions by one method and seed, under a name that its captions give. It is renamed into
place once its pictures are there: a caption is done or not, and a block made twice replaces itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from operator import index
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch

from fusedream_nb.evaluation import methods
from fusedream_nb.method import views
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.scores import AugCLIP
from fusedream_nb.models import Models, load
from fusedream_nb.models.weights import CLIP, JUDGE
from fusedream_nb.records import png
from fusedream_nb.records.record import hashes, slug

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
COPIES, COPIES_SEED = 12, 30_000_099  # of the augmentations that pictures are measured on
STORE_BYTES = 100_000_000  # of a local cluster's object store: records do not go through it
TRIES = 5  # of a block whose writing fails


class Folder:
    """The folder of a run at a local path or an fsspec address; ValueError where its package is missing."""

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
        """Return the run's settings, {} in a new folder; ValueError for a damaged file."""
        if not self.files.exists(f"{self.root}/{RUN}"):
            return {}
        try:
            found = dict(json.loads(self.read([RUN])[0]))
            index(found.get("threads", 1))
            return found
        except (ValueError, TypeError, RecursionError) as error:
            what = f"{self.address}/{RUN} should hold a run's settings as JSON"
            raise ValueError(f"{what} ({error}); take another folder.") from error

    def begin(self, settings: dict[str, Any]) -> None:
        """Note a run's settings, and delete what killed workers left; ValueError in another run's folder."""
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
        """Append the records of one block, whose pictures are there already."""
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


@dataclass(frozen=True)
class Plan:
    """What a run draws: each caption by each method, on ``threads`` threads per worker."""

    captions: list[str] = field(repr=False)
    methods: tuple[str, ...]
    sizes: Budget
    model: str = "stickers"
    device: str = "cpu"
    threads: int = 1
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """Return what all records of a folder share."""
        encoders = () if self.model.partition("/")[0] == "stickers" else (CLIP, JUDGE)
        shared = {name: getattr(self, name) for name in ("model", "device", "threads")}
        weights = hashes(self.model, *encoders)
        return {**shared, "together": methods.AT_ONCE, "sizes": asdict(self.sizes), "weights": weights}


@dataclass(frozen=True)
class Block:
    """A few captions that one worker draws together, by one method."""

    method: str
    captions: tuple[str, ...]


def todo(plan: Plan, folder: Folder) -> list[Block]:
    """Return the blocks that a folder lacks: all methods of some captions, then those of the next."""
    missing, size = [], methods.AT_ONCE
    for method in plan.methods:
        done = folder.done(method, plan.seed)
        left = [caption for caption in plan.captions if caption not in done]
        missing += [(i, Block(method, tuple(left[i : i + size]))) for i in range(0, len(left), size)]
    return [block for _, block in sorted(missing, key=lambda pair: pair[0])]


def run(
    plan: Plan, folder: Folder, make_all: Callable[[list[Block]], Iterator[int]]
) -> Iterator[tuple[int, int]]:
    """Make what is missing by :func:`here` or :func:`on_ray`; yield how many pictures are made, of how many.

    Stopped anywhere, killed too, a run goes on where it was. Raises ValueError for a folder of another run.
    """
    folder.begin(plan.settings())
    blocks = todo(plan, folder)
    made, total = 0, sum(len(block.captions) for block in blocks)
    yield made, total
    for count in make_all(blocks) if blocks else ():
        made += count
        yield made, total


def here(blocks: list[Block], plan: Plan, folder: Folder, models: Models) -> Iterator[int]:
    """Make blocks in this process, one after another."""
    return (make(block, plan, folder, models) for block in blocks)


def make(block: Block, plan: Plan, folder: Folder, models: Models) -> int:
    """Draw and measure a block, write its pictures and then its records; return how many these are."""
    torch.set_num_threads(plan.threads)  # sums depend on it
    rng, rows, began = torch.Generator().manual_seed(COPIES_SEED), [], time.monotonic()
    fixed = views.sample(1, COPIES, rng)
    with warnings.catch_warnings(action="ignore"):  # of unknown words, one per caption
        images = methods.draw(block.method, block.captions, models, plan.sizes, plan.seed)
        seconds = (time.monotonic() - began) / len(images)
        for image, caption in zip(images, block.captions, strict=True):
            kept = torch.from_numpy(png.levels(image)).permute(2, 0, 1)[None].to(models.device) / 127.5 - 1
            with torch.no_grad():  # one by one: what stands beside a picture changes its numbers' last bits
                score = float(AugCLIP(models.clip, caption, COPIES, fixed=fixed)(kept, rng))
                clip, judge = (each.encode_image(kept)[0].tolist() for each in (models.clip, models.judge))
            path = f"{PICTURES}/{block.method}/{slug(caption, plan.seed)}.png"
            row = {"caption": caption, "method": block.method, "seed": plan.seed, "augclip": score}
            folder.write(path, png.encode(image, json.dumps(row)))
            rows.append({**row, "picture": path, "clip": clip, "judge": judge, "seconds": seconds})
    folder.add(rows)
    return len(rows)


class Worker:
    """One process with its own models, loaded once, that makes blocks and writes them itself."""

    def __init__(self, plan: Plan, address: str) -> None:
        self.plan, self.folder = plan, Folder(address)
        self.models = load(plan.model, device=plan.device)

    def make(self, block: Block) -> int:
        """Return how many records of a block were written."""
        return make(block, self.plan, self.folder, self.models)


def on_ray(
    blocks: list[Block], plan: Plan, folder: Folder, address: str, workers: int | None = None
) -> Iterator[int]:
    """Make a plan's blocks on a Ray cluster at an address, or one started here for "local".

    All workers must see the folder. There is one for each GPU, or each core where the plan's device is the
    CPU; one that dies is started again, and its block with it.
    Raises ConnectionError for a cluster that is not there, ValueError for one without a GPU or core to spare.
    """
    import ray
    from ray.util import ActorPool

    gpu = plan.device.startswith("cuda")
    started: dict[str, Any] = {"address": address}
    if address == "local":  # a worker without GPUs keeps its view of them
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        started = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    with warnings.catch_warnings(action="ignore"):
        ray.init(log_to_driver=False, **started)
    try:
        there = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
        number = min(workers or there, len(blocks))
        if number < 1:
            missing = "GPU" if gpu else "core"
            raise ValueError(f"The cluster has no {missing} to spare; take another --device.")
        limits = {"num_gpus": int(gpu), "max_restarts": -1, "max_task_retries": -1}
        actor: Any = ray.remote(Worker).options(num_cpus=1, **limits)
        crew = [actor.remote(replace(plan, captions=[]), folder.address) for _ in range(number)]
        again = {"retry_exceptions": [OSError], "max_task_retries": TRIES}
        yield from ActorPool(crew).map_unordered(
            lambda one, block: one.make.options(**again).remote(block), blocks
        )
    finally:
        ray.shutdown()
