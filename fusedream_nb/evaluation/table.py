"""Table 1: pictures of many captions by several methods, a block at a time, and what they score."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from fusedream_nb.evaluation import methods, metrics
from fusedream_nb.evaluation.folder import PICTURES, Folder
from fusedream_nb.evaluation.metrics import Estimate
from fusedream_nb.evaluation.networks import CHUNK, Judge, Network

if TYPE_CHECKING:
    from fusedream_nb.evaluation.networks import Damsm
    from fusedream_nb.method.budgets import Budget
    from fusedream_nb.models import Models

COPIES, COPIES_SEED = 12, 30_000_099  # of the augmentations that pictures are measured on


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
        """Return what all records of a folder share; captions, methods and seeds may be added later."""
        from fusedream_nb.models.weights import CLIP, JUDGE
        from fusedream_nb.records.record import hashes

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
    missing: list[tuple[int, Block]] = []
    for method in plan.methods:
        done = folder.done(method, plan.seed)
        left = [caption for caption in plan.captions if caption not in done]
        for i in range(0, len(left), methods.AT_ONCE):
            missing.append((i, Block(method, tuple(left[i : i + methods.AT_ONCE]))))
    return [block for _, block in sorted(missing, key=lambda pair: pair[0])]


def run(
    plan: Plan, folder: Folder, make_all: Callable[[list[Block]], Iterator[int]]
) -> Iterator[tuple[int, int]]:
    """Make what is missing; yield how many pictures are made, and of how many.

    ``make_all`` takes blocks and yields how many records each of them gave, in any order: :func:`here` or
    :func:`.ray.on_ray`. Stopped anywhere, killed too, a run goes on where it was.
    Raises ValueError for a folder of another run.
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
    from fusedream_nb.method import views
    from fusedream_nb.method.scores import AugCLIP
    from fusedream_nb.records import png
    from fusedream_nb.records.record import slug

    torch.set_num_threads(plan.threads)  # sums depend on it
    rng, rows, began = torch.Generator().manual_seed(COPIES_SEED), [], time.monotonic()
    fixed = views.draw(1, COPIES, rng)
    with warnings.catch_warnings(action="ignore"):  # of unknown words, one per caption
        images = methods.draw(block.method, block.captions, models, plan.sizes, plan.seed)
        row: dict[str, Any] = {"method": block.method, "seed": plan.seed}
        row["seconds"] = (time.monotonic() - began) / len(images)
        for image, caption in zip(images, block.captions, strict=True):
            kept = torch.from_numpy(png.levels(image)).permute(2, 0, 1)[None].to(models.device) / 127.5 - 1
            with torch.no_grad():  # one by one: what stands beside a picture changes its numbers' last bits
                score = float(AugCLIP(models.clip, caption, COPIES, fixed=fixed)(kept, rng))
                clip, judge = (each.encode_image(kept)[0].tolist() for each in (models.clip, models.judge))
            path = f"{PICTURES}/{block.method}/{slug(caption, plan.seed)}.png"
            rows.append(
                {**row, "caption": caption, "picture": path, "augclip": score, "clip": clip, "judge": judge}
            )
    for image, row in zip(images, rows, strict=True):
        text = {name: row[name] for name in ("caption", "method", "seed", "augclip")}
        folder.write(row["picture"], png.encode(image, json.dumps(text)))
    folder.add(rows)
    return len(rows)


@dataclass(frozen=True)
class MethodResult:
    """How one method's n pictures score; retrievals are shares in [0, 1], cosines in [-1, 1].

    ``judge`` is the encoder that was never climbed, ``clip`` the one that was, ``damsm`` the paper's;
    ``r_precision_std`` is over the repeats. ``set_metrics`` are those of :func:`.metrics.of_pictures`, {}
    where there is no reference or too few pictures.
    """

    method: str
    n: int
    seconds: float
    r_precision: dict[str, Estimate]
    r_precision_std: dict[str, float]
    clip_score: dict[str, Estimate]
    augclip: Estimate
    set_metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Table:
    """The results, one per method, and what they were measured with."""

    results: list[MethodResult]
    candidates: int
    network: str
    library: str
    reference: int


def summarise(
    plan: Plan,
    folder: Folder,
    models: Models,
    network: Network | None = None,
    reference: Tensor | None = None,
    *,
    damsm: Damsm | None = None,
    seed: int = 0,
) -> Table:
    """Measure each method of a plan on the captions that all of its methods have finished.

    Args:
        plan: captions, methods and the seed that they were drawn with.
        folder: where their records are.
        models: whose encoders read the captions.
        network: reads the pictures for the metrics of sets; None leaves these out.
        reference: its features of real pictures, [m, d]; None leaves out what needs them.
        damsm: takes the R-precision with these encoders too.
        seed: of the intervals, and of the captions that a picture meets.

    Raises ValueError where fewer than two captions are finished by all.
    """
    common = set(plan.captions).intersection(*(folder.done(method, plan.seed) for method in plan.methods))
    captions = [caption for caption in plan.captions if caption in common]
    if len(captions) < 2:
        raise ValueError("Fewer than two captions are finished by all methods; there is nothing to compare.")
    encoders = {"judge": models.judge, "clip": models.clip} | ({"damsm": damsm} if damsm else {})
    with warnings.catch_warnings(action="ignore"):  # of unknown words, one per caption
        texts = {name: encoder.encode_text(captions).cpu() for name, encoder in encoders.items()}
        results = []
        for method in plan.methods:
            found = folder.records(method, plan.seed)
            found = found.take(pc.index_in(pa.array(captions), found["caption"])).combine_chunks()
            vectors = {name: _tensor(found, name) for name in ("judge", "clip")}
            if damsm is not None:
                vectors["damsm"] = torch.cat([damsm.encode_image(some) for some in _pictures(folder, found)])
            features: tuple[Tensor, ...] | None = None
            if network is not None and reference is not None and len(captions) >= 2 * metrics.SPLITS:
                if isinstance(network, Judge):  # what it saw is on record
                    features = network.read(vectors["judge"])
                else:
                    read = [network(some) for some in _pictures(folder, found)]
                    features = tuple(torch.cat(part) for part in zip(*read, strict=True))
            rng = torch.Generator().manual_seed(seed)  # the same rival captions for each method
            results.append(_result(method, found, vectors, texts, features, reference, rng))
    return Table(
        results,
        candidates=min(metrics.MISMATCHED + 1, len(captions)),
        network="nothing" if network is None else network.name,
        library=f"torch-fidelity {version('torch-fidelity')}",
        reference=0 if reference is None else len(reference),
    )


def _result(
    method: str,
    records: pa.Table,
    vectors: dict[str, Tensor],
    texts: dict[str, Tensor],
    features: tuple[Tensor, ...] | None,
    reference: Tensor | None,
    rng: torch.Generator,
) -> MethodResult:
    retrieved = {name: metrics.r_precision(vectors[name], texts[name], rng) for name in texts}
    several: dict[str, Estimate] = {}
    if features is not None and reference is not None:
        several = metrics.of_pictures(features[0].cpu(), features[1].cpu(), reference, rng)
    return MethodResult(
        method,
        len(records),
        float(_tensor(records, "seconds").double().mean()),
        {name: metrics.mean_interval(one.hits.double().mean(0), rng) for name, one in retrieved.items()},
        {name: one.std for name, one in retrieved.items()},
        {n: metrics.mean_interval((vectors[n] * texts[n]).sum(-1), rng) for n in ("judge", "clip")},
        metrics.mean_interval(_tensor(records, "augclip"), rng),
        several,
    )


def _tensor(records: pa.Table, name: str) -> Tensor:
    """Return a column of numbers [n], or of vectors [n, d]."""
    return torch.from_numpy(np.stack(list(records[name].to_numpy())))


def _pictures(folder: Folder, records: pa.Table) -> Iterator[Tensor]:
    """Yield the pictures of records, [n, 3, h, w] in [-1, 1], a few in memory at a time."""
    from torchvision.io import decode_image

    names = records["picture"].to_pylist()
    for first in range(0, len(names), CHUNK):
        files = folder.read(names[first : first + CHUNK])
        levels = [decode_image(torch.frombuffer(bytearray(file), dtype=torch.uint8), "RGB") for file in files]
        yield torch.stack(levels) / 127.5 - 1
