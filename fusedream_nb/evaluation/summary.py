"""Table 1 of a run folder: what each method's pictures score, with intervals, on the same captions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fusedream_nb.evaluation import metrics
from fusedream_nb.evaluation.metrics import Estimate
from fusedream_nb.evaluation.networks import CHUNK, Judge, Network
from fusedream_nb.evaluation.retrieval import Retrieval, r_precision

if TYPE_CHECKING:
    from fusedream_nb.evaluation.damsm import Damsm
    from fusedream_nb.evaluation.evaluate import Plan
    from fusedream_nb.evaluation.store import Store
    from fusedream_nb.models import Models


@dataclass(frozen=True)
class Standing:
    """How one method's n pictures score; retrievals are shares in [0, 1], cosines in [-1, 1].

    ``judge`` is the encoder that was never climbed, ``clip`` the one that was, ``damsm`` the paper's.
    ``set_metrics`` are those of :func:`.metrics.of_pictures`, {} where there is no reference or too few
    pictures.
    """

    method: str
    n: int
    seconds: float
    r_precision: dict[str, Estimate]
    deviation: dict[str, float]
    clip_score: dict[str, Estimate]
    augclip: Estimate
    set_metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Summary:
    """The standings, one a method, and what they were measured with."""

    standings: list[Standing]
    candidates: int
    network: str
    library: str
    reference: int

    def as_json(self) -> dict[str, Any]:
        """Return plain values, NaN as None."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def summarise(
    plan: Plan,
    store: Store,
    models: Models,
    network: Network | None,
    reference: Tensor | None,
    *,
    damsm: Damsm | None = None,
    seed: int = 0,
) -> Summary:
    """Measure each method of a plan on the captions that all of its methods have finished.

    ``reference`` [m, d] are the network's features of real pictures; None leaves out what needs them.
    With ``damsm`` the R-precision is taken with these encoders too.
    Raises ValueError where fewer than two captions are finished by all.
    """
    keys = [(method, number) for method in plan.methods for number in plan.seeds]
    common = set(plan.captions).intersection(*(store.done(*key) for key in keys))
    captions = [caption for caption in plan.captions if caption in common]
    if len(captions) < 2:
        raise ValueError("Fewer than two captions are finished by all methods; there is nothing to compare.")
    with _silent():  # of unknown words, one a caption
        texts = {name: getattr(models, name).encode_text(captions).cpu() for name in ("judge", "clip")}
    if damsm is not None:
        texts["damsm"] = damsm.encode_text(captions)
    standings, candidates = [], 0
    for method in plan.methods:
        rng = torch.Generator().manual_seed(seed)  # the same rival captions for each method
        found, columns = _retrieve(plan, store, method, captions, texts, damsm, rng)
        candidates = found["judge"].candidates
        standings.append(_standing(method, found, columns, texts, store, network, reference, rng))
    library = f"torch-fidelity {version('torch-fidelity')}"
    name = "nothing" if network is None else network.name
    return Summary(standings, candidates, name, library, 0 if reference is None else len(reference))


def _retrieve(
    plan: Plan,
    store: Store,
    method: str,
    captions: list[str],
    texts: dict[str, Tensor],
    damsm: Damsm | None,
    rng: torch.Generator,
) -> tuple[dict[str, Retrieval], dict[str, Any]]:
    """Return the encoders' retrievals over all seeds, and a method's columns in the captions' order."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("augclip", "clip", "judge", "seconds", "picture", "row")
    }
    hits: dict[str, list[Retrieval]] = {name: [] for name in texts}
    for number in plan.seeds:
        rows = _rows(store, method, number, captions)
        for name, values in rows.items():
            columns[name] += values
        columns["row"] += range(len(captions))
        if damsm is not None:
            rows["damsm"] = [
                vector
                for images in _pictures(store, rows["picture"])
                for vector in damsm.encode_image(images)
            ]
        for name, several in hits.items():
            several.append(r_precision(torch.stack(rows[name]), texts[name], rng))
    joined = {
        name: Retrieval(torch.cat([one.hits for one in several], 1), several[0].candidates)
        for name, several in hits.items()
    }
    return joined, columns


def _rows(store: Store, method: str, seed: int, captions: list[str]) -> dict[str, list[Any]]:
    """Read a method's records of some captions, in their order."""
    place = {caption: i for i, caption in enumerate(captions)}
    names = ("augclip", "clip", "judge", "seconds", "picture")
    rows: dict[str, list[Any]] = {name: [None] * len(captions) for name in names}
    for part in store.parts(method, seed):
        found = [
            (i, place[text]) for i, text in enumerate(part.column("caption").to_pylist()) if text in place
        ]
        for name in names:
            values = part.column(name).to_pylist()
            for i, at in found:
                rows[name][at] = torch.tensor(values[i]) if name in ("clip", "judge") else values[i]
    return rows


def _standing(
    method: str,
    found: dict[str, Retrieval],
    columns: dict[str, Any],
    texts: dict[str, Tensor],
    store: Store,
    network: Network | None,
    reference: Tensor | None,
    rng: torch.Generator,
) -> Standing:
    n = len(columns["row"])
    vectors = {name: torch.stack(columns[name]) for name in ("judge", "clip")}
    cosines = {name: (vectors[name] * texts[name][columns["row"]]).sum(-1) for name in vectors}
    several: dict[str, Estimate] = {}
    if network is not None and reference is not None and n >= 2 * metrics.SPLITS:
        if isinstance(network, Judge):
            features, logits = network.read(vectors["judge"])
        else:
            features, logits = _features(store, columns["picture"], network)
        with _silent():  # told once for all methods, by who shows the table
            several = metrics.of_pictures(features, logits, reference, rng)
    return Standing(
        method,
        n,
        sum(columns["seconds"]) / n,
        {name: metrics.mean_interval(one.hits.double().mean(0), rng) for name, one in found.items()},
        {name: one.deviation for name, one in found.items()},
        {name: metrics.mean_interval(values, rng) for name, values in cosines.items()},
        metrics.mean_interval(torch.tensor(columns["augclip"]), rng),
        several,
    )


def _features(store: Store, pictures: list[str], network: Network) -> tuple[Tensor, Tensor]:
    """Return the features and logits of pictures that a run wrote."""
    features, logits = zip(*(network(images) for images in _pictures(store, pictures)), strict=True)
    return torch.cat(features), torch.cat(logits)


def _pictures(store: Store, names: list[str]) -> Iterator[Tensor]:
    """Yield pictures [n, 3, h, w] in [-1, 1] that a run wrote, a few in memory at a time."""
    from torchvision.io import decode_image

    for first in range(0, len(names), CHUNK):
        files = store.read(names[first : first + CHUNK])
        levels = [decode_image(torch.frombuffer(bytearray(file), dtype=torch.uint8), "RGB") for file in files]
        yield torch.stack(levels) / 127.5 - 1


@contextmanager
def _silent() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):
        yield


def _plain(value: Any) -> Any:  # noqa: ANN401  whatever JSON holds
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and value != value else value
