"""Table 1: what each method's pictures of the same captions reach, with intervals."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torchvision.io import decode_image

from fusedream_nb.evaluation import metrics
from fusedream_nb.evaluation.metrics import Estimate, mean_interval
from fusedream_nb.evaluation.networks import CHUNK, Damsm, Judge, Network, batched
from fusedream_nb.evaluation.runs import Folder, Plan
from fusedream_nb.models import Models


@dataclass(frozen=True)
class MethodResult:
    """How one method's n pictures score; retrievals are shares in [0, 1], cosines in [-1, 1].

    ``judge`` is the encoder that was never climbed, ``clip`` the one that was, ``damsm`` the paper's.
    ``set_metrics`` are those of :func:`of_pictures`, {} without a reference or with too few pictures.
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

    The network and its features of real pictures, the reference [m, d], are for the metrics of sets, which
    are left out without them; with DAMSM the R-precision is taken by its encoders too. The seed is that of
    the intervals and of the mismatched captions.
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
            rng = torch.Generator().manual_seed(seed)  # the same mismatched captions for each method
            retrieved = {name: metrics.r_precision(vectors[name], texts[name], rng) for name in texts}
            sets: dict[str, Estimate] = {}
            if network is not None and reference is not None and len(captions) >= 2 * metrics.SPLITS:
                if isinstance(network, Judge):  # what it saw is on record
                    features, logits = network.read(vectors["judge"])
                else:
                    read = [network(some) for some in _pictures(folder, found)]
                    features, logits = (torch.cat(part) for part in zip(*read, strict=True))
                sets = metrics.of_pictures(features.cpu(), logits.cpu(), reference, rng)
            results.append(
                MethodResult(
                    method,
                    len(found),
                    float(_tensor(found, "seconds").double().mean()),
                    {name: mean_interval(one.hits.double().mean(0), rng) for name, one in retrieved.items()},
                    {name: one.std for name, one in retrieved.items()},
                    {n: mean_interval((vectors[n] * texts[n]).sum(-1), rng) for n in ("judge", "clip")},
                    mean_interval(_tensor(found, "augclip"), rng),
                    sets,
                )
            )
    return Table(
        results,
        candidates=min(metrics.MISMATCHED + 1, len(captions)),
        network="nothing" if network is None else network.name,
        library=f"torch-fidelity {version('torch-fidelity')}",
        reference=0 if reference is None else len(reference),
    )


def _tensor(records: pa.Table, name: str) -> Tensor:
    """Return a column of numbers [n], or of vectors [n, d]."""
    return torch.from_numpy(np.stack(list(records[name].to_numpy())))


def _pictures(folder: Folder, records: pa.Table) -> Iterator[Tensor]:
    """Yield the pictures of records, [n, 3, h, w] in [-1, 1], a few in memory at a time."""
    names = records["picture"].to_pylist()
    for some in batched(names, CHUNK):
        files = folder.read(some)
        levels = [decode_image(torch.frombuffer(bytearray(file), dtype=torch.uint8), "RGB") for file in files]
        yield torch.stack(levels) / 127.5 - 1
