"""Loops over runs that go on after a disconnect, from what they left in a folder such as one on a drive."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fusedream_nb.method.compose import ComposeStep
from fusedream_nb.method.placement import Placement
from fusedream_nb.method.run import Run, Step
from fusedream_nb.method.transport import TransportStep
from fusedream_nb.method.views import Places
from fusedream_nb.models.generators import Latent
from fusedream_nb.records import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

MOMENTS = 20  # of a run at which what is large is kept
LARGE = 4096  # numbers: pictures have more, scores and plans have fewer
KEPT: list[Any] = [Step, ComposeStep, TransportStep, Latent, Placement, Places]  # classes in the files


def checkpoints(folder: str | Path | None = None) -> None:
    """Keep in a folder, from now on, what loops over runs have done, and go on from there the next time.

    A loop over the same run then first gives the steps that were made before. Their scores are exact; what
    is large, such as pictures, is kept twenty times a run and to 16 bits, and stands for the steps after it.
    The last step is exact. A run that is looped over twice is kept twice.

    Args:
        folder: its drive is mounted if it is Google's; "" reads FUSEDREAM_CHECKPOINTS, else keeps nothing.
    """
    path = Path(folder or os.environ.get("FUSEDREAM_CHECKPOINTS") or "")
    if path.parts[:3] == ("/", "content", "drive") and not Path("/content/drive/MyDrive").exists():
        import_module("google.colab.drive").mount("/content/drive")
    asked = Counter[str]()

    def keeper(run: Run[Any]) -> Iterator[Step]:
        """Return the steps of a run, kept in a folder of its own; raises as :func:`.checkpoint.restore`."""
        what = json.dumps([checkpoint.made_by(run), *_begun(run)], default=checkpoint.text_of)
        name = hashlib.sha256(what.encode()).hexdigest()[:12]
        asked[name] += 1
        place = path / f"{run.method}-{name}-{asked[name]}"
        checkpoint.restore(run, place)
        return _steps(run, place)

    Run.keeper = keeper if path.name else None


def _begun(run: Run[Any]) -> list[Any]:
    """Return what else tells a climb of one's own from others; other runs are told by what was asked for."""
    if hasattr(run, "config"):
        return []
    return [run.knobs, [rng.get_state() for rng in run.rngs], run.start.parameters()]


def _steps(run: Run[Any], place: Path) -> Iterator[Step]:
    past: list[Step] = _load(place / "steps.pt", run)[: run.index] if run.index else []
    large: dict[str, Any] = {}
    for step in past:
        file = place / f"{step.index:06}.pt"
        large = _large(_load(file, run), Tensor.float) if file.exists() else large
        yield replace(step, **large)
    files: dict[Path, Any] = {}
    due = 0.0
    while (now := next(run, None)) is not None:
        large = _large(now, Tensor.half)
        if now.index % max(1, now.total // MOMENTS) == 0:
            files[place / f"{now.index:06}.pt"] = replace(now, **large)
        past.append(replace(now, **dict.fromkeys(large)))
        if monotonic() >= due or now.index >= now.total:
            checkpoint.save_state(run, place, files | {place / "steps.pt": past})
            files, due = {}, monotonic() + checkpoint.EVERY
        yield now


def _large(step: Step, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Return the fields of a step that are large, with a function applied to their tensors."""
    own = {field.name: getattr(step, field.name) for field in fields(step)}
    latents = {name: value.map(change) for name, value in own.items() if isinstance(value, Latent)}
    return latents | {
        name: change(value)
        for name, value in own.items()
        if isinstance(value, Tensor) and value.numel() > LARGE
    }


def _load(path: Path, run: Run[Any]) -> Any:  # noqa: ANN401
    with checkpoint.undamaged(path), torch.serialization.safe_globals(KEPT):
        return torch.load(path, map_location=checkpoint.device_of(run), weights_only=True)
