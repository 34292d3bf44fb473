"""The start as a lookup: with fixed views, the pictures' side of the ranking does not depend on the prompt.

AugCLIP's mean cosine over an image's copies is the mean of their unit vectors, times the text's. A *bank*
keeps these means [M, dim] of one seed's M samples, in half precision, in the cache folder or with the
package. It names the networks, the seed and the views that it was made of, and has a checksum; what is
damaged or foreign is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fusedream_nb.models.compute import pictures_at_once
from fusedream_nb.models.files import fingerprint, write_tensors
from fusedream_nb.models.generators import Generator, Latent
from fusedream_nb.models.weights import STICKERS, cache

from . import views
from .budgets import Budget
from .scores import AugCLIP, mean_vectors
from .views import Copies

if TYPE_CHECKING:
    from fusedream_nb.models import Models
    from fusedream_nb.models.encoders import Clip

FORMAT = 1
START_SEED = 12_015_73  # of the views that every start is ranked by; any constant does
WORTH = 1000  # samples from which on a bank is kept: fewer are ranked in seconds
KEPT = 64  # banks in the cache folder; the oldest go
SHIPPED = STICKERS / "bank"
FILES = "*.safetensors"
Progress = Callable[[int, int], object]  # how many pictures are done, and of how many


def ranked(text: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return which pictures of a bank [M, dim] may be among the k best for any of some texts [texts, dim].

    Half precision moves the score of vector v and text t by 2⁻¹¹ Σ|vᵢ tᵢ| at most: all whose scores may reach
    the k-th are candidates, so no tie is lost.
    """
    vectors = bank.to(text)
    scores = vectors @ text.T
    error = 0.0 if bank.dtype == torch.float32 else 2.0**-11
    reach = error * (vectors.abs() @ text.abs().T) + 1e-6
    kth = (scores - reach).topk(k, dim=0).values[-1]
    return (scores + reach >= kth).any(1).nonzero()[:, 0]


def vectors_of(
    generator: Generator, table: Callable[..., Tensor], M: int, rng: torch.Generator, batch: int | None
) -> tuple[Tensor, Tensor, Latent] | None:
    """Return the texts' vectors, the bank [M, dim] and the M latents of the ``table`` of an AugCLIP.

    None, with nothing sampled, where a bank does not pay, for other scores and random views, and for networks
    of a kind that cannot be recognised.
    """
    score = getattr(table, "__self__", None)
    if M < WORTH or not isinstance(score, AugCLIP) or table != score.table or score.fixed is None:
        return None
    key = bank_key(generator, score.clip, score.fixed, M, rng)
    if key is None:
        return None
    latents = generator.sample(M, rng)
    make = partial(image_vectors, generator, score.clip, score.fixed, latents, batch)
    vectors = kept(key, make, label=f"{type(generator).__name__}, {generator.size} px")
    return score.text, vectors.to(score.text.device), latents


@torch.no_grad()
def image_vectors(
    generator: Generator,
    clip: Clip,
    views: Copies,
    latents: Latent,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Return the mean vectors [M, dim] of the views of M latents' pictures, a few in memory at a time."""
    batch = batch or pictures_at_once(generator.size, latents.z.device)
    parts = []
    for first in range(0, len(latents), batch):
        image = generator.decode(latents[first : first + batch])
        parts.append(mean_vectors(clip, image, views.expand(len(image))))
        if progress:
            progress(min(first + batch, len(latents)), len(latents))
    return torch.cat(parts)


def start_views(copies: int, policy: Collection[str] = views.ALL) -> Copies:
    """Return the fixed views by which every start is ranked."""
    return views.sample(1, copies, torch.Generator().manual_seed(START_SEED), policy)


def widened(
    budget: Budget, models: Models, seeds: Collection[int], policy: Collection[str] = views.ALL
) -> Budget:
    """Return the budget with the M of the banks that ship for all seeds; as it is if one has none."""
    fixed, shipped = start_views(budget.start_copies, policy), banks(SHIPPED)
    rngs = [torch.Generator().manual_seed(seed) for seed in set(seeds)]
    for M in {row["M"] for row in shipped}:
        keys = [bank_key(models.generator, models.clip, fixed, M, rng) for rng in rngs]
        if {bank_name(key) if key else "" for key in keys} <= {row["path"].name for row in shipped}:
            return replace(budget, M=M)
    return budget


def build(
    models: Models,
    *,
    seed: int,
    M: int,
    copies: int,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Make the banks of a seed, unless they are there: of its start, and of a composition's second start.

    M samples are ranked on so many ``copies``, a Budget's ``start_copies``; ``folder`` is where they are kept
    (default: the cache's), and ``progress`` is called with how many pictures are done, and of how many.
    Returns their paths, without those that could not be kept, of which a warning said so.
    Raises ValueError for models whose networks cannot be recognised.
    """
    generator, views, rng = models.generator, start_views(copies), torch.Generator().manual_seed(seed)
    paths = []
    for label in (models.name, f"{models.name}, second start of a composition"):
        key = bank_key(generator, models.clip, views, M, rng)
        if key is None:
            raise ValueError(f"{models.name} is not of this package's classes: its bank would not be found.")
        latents = generator.sample(M, rng)
        make = partial(image_vectors, generator, models.clip, views, latents, progress=progress)
        kept(key, make, folder=folder, label=label)
        paths += [place / bank_name(key) for place in ([folder] if folder else [SHIPPED, cache() / "banks"])]
    return [path for path in paths if path.exists()]


def banks(*folders: Path) -> list[dict[str, Any]]:
    """Return of each bank in folders (default: the package's, the cache's) its label, seed, M and path."""
    rows = []
    for path in [p for folder in folders or (SHIPPED, cache() / "banks") for p in sorted(folder.glob(FILES))]:
        with suppress(SafetensorError, KeyError, ValueError, TypeError), safe_open(path, "pt") as file:
            metadata = file.metadata()
            key = json.loads(metadata["key"])
            rows.append({"of": metadata["of"], "seed": key["seed"], "M": key["M"], "path": path})
    return rows


def bank_key(
    generator: Generator, clip: Clip, views: Copies | None, M: int, rng: torch.Generator
) -> str | None:
    """Return the JSON that names a bank: networks, randomness and views; None if they are not known.

    The numbers of M samples are not the first of more samples, so M is a part of the name.
    """
    networks = fingerprint(generator), fingerprint(clip)
    if None in networks or views is None:
        return None
    numbers = b"".join(t.cpu().numpy().tobytes() for t in vars(views).values())
    state = rng.get_state().numpy().tobytes()
    key = {"format": FORMAT, "networks": networks, "M": M, "seed": rng.initial_seed()}
    return json.dumps(key | {"state": _digest(state), "views": _digest(numbers)})


def bank_name(key: str) -> str:
    """Return the name of a bank's file."""
    return f"{_digest(key.encode())}.safetensors"


def kept(key: str, make: Callable[[], Tensor], *, folder: Path | None = None, label: str = "") -> Tensor:
    """Return the bank [M, dim] of a key: the one that is there, else what ``make`` gives, which is kept.

    Processes that ask for the same one wait for each other. Where it cannot be kept, it is returned all the
    same, with a warning.
    """
    name = bank_name(key)
    path = (folder or cache() / "banks") / name
    for place in (path,) if folder else (SHIPPED / name, path):
        if (vectors := _read(place, key)) is not None:
            return vectors
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            vectors = _read(path, key, warn=False)  # another process may have made it meanwhile
            if vectors is None:
                vectors = make()
                _write(path, key, vectors, label)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        warnings.warn(f"The start's bank cannot be kept in {path.parent} ({why}).", stacklevel=3)
    return make() if vectors is None else vectors


def _read(path: Path, key: str, *, warn: bool = True) -> Tensor | None:
    """Return a bank; None where there is none or, with a warning, where it is not right."""
    if not path.exists():
        return None
    with suppress(Exception), safe_open(path, "pt") as file:  # whatever a damaged file makes its reader say
        metadata, vectors = file.metadata(), file.get_tensor("vectors")
        if metadata["key"] == key and metadata["digest"] == _digest(vectors.numpy().tobytes()):
            return vectors
    if warn:
        warnings.warn(f"{path} is not the bank that its name says; it is made again.", stacklevel=4)
    return None


def _write(path: Path, key: str, vectors: Tensor, label: str) -> None:
    """Write a bank whole or not at all, and delete the oldest beyond KEPT."""
    half, part = vectors.half().cpu().contiguous(), path.with_suffix(".part")
    try:
        metadata = {"key": key, "digest": _digest(half.numpy().tobytes()), "of": label}
        write_tensors({"vectors": half}, part, metadata)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    for old in sorted(path.parent.glob(FILES), key=lambda p: p.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
        old.with_suffix(".lock").unlink(missing_ok=True)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
