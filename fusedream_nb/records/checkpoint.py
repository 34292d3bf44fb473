"""A run's state on disk, whole or not at all: a process that is killed goes on from there, to the bit."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fusedream_nb import __version__
from fusedream_nb.records import png

if TYPE_CHECKING:
    import torch

    from fusedream_nb.method.run import Run, Step

EVERY = 30.0  # seconds between two checkpoints
FILE = "state.pt"
S = TypeVar("S", bound="Step")


def checkpointed(run: Run[S], folder: str | Path, *, every: float = EVERY) -> Iterator[S]:
    """Return a run's steps; meanwhile its state is saved in a folder, and gone on from if it is there.

    The state is that after a step: the first, then one every so many seconds (0: each), then the last.
    Going on begins with the saved step again. Call it before knobs are turned.
    Raises what :func:`restore` raises, before any work, and OSError where the folder cannot be written to.
    """
    restore(run, folder)
    return _saving(run, Path(folder), every)


def _saving(run: Run[S], folder: Path, every: float) -> Iterator[S]:
    due = 0.0
    for step in run:
        if time.monotonic() >= due or step.index >= step.total:
            save_state(run, folder)
            due = time.monotonic() + every
        yield step


def save_state(run: Run[Any], folder: Path, others: Mapping[Path, Any] | None = None) -> Path:
    """Write a run's state to a folder, and before it other things by file; raises OSError."""
    import torch

    path, files = folder / FILE, {}
    for file, what in {**(others or {}), path: {"made_by": made_by(run), "state": run.state_dict()}}.items():
        buffer = BytesIO()
        torch.save(what, buffer)
        files[file] = buffer.getvalue()
    png.write(files)
    return path


def restore(run: Run[Any], folder: str | Path) -> None:
    """Set a run to the state that a folder holds, if it holds one.

    Raises ValueError for another run's state and for a file that is damaged, OSError where it cannot be read.
    """
    import torch

    path = Path(folder) / FILE
    if not path.exists():
        return
    data = BytesIO(path.read_bytes())
    with undamaged(path):
        saved = torch.load(data, map_location=device_of(run), weights_only=True)
        made, state = saved["made_by"], saved["state"]
        if not (made.keys() and state["best"].keys()) or state["index"] not in range(state["total"] + 1):
            raise ValueError("it is none")
    mine = made_by(run)
    if made != mine:
        other = next(name for name in mine if made.get(name) != mine[name])
        raise ValueError(f"{path} is another run's ({other} differs); choose another folder or remove it.")
    with undamaged(path):
        run.load_state_dict(state)


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Raise ValueError, naming the file, for whatever a state that is none makes go wrong."""
    try:
        yield
    except Exception as error:  # what is no state makes torch and a run say anything
        raise ValueError(f"{path} is damaged or no state of a run; remove it to begin again.") from error


def made_by(run: Run[Any]) -> dict[str, str]:
    """Return what a run was asked for, as texts that are the same in every process."""
    rows: dict[str, Any] = {"package": __version__, "canvas": getattr(run.generator, "canvas", None)}
    if hasattr(run, "config"):
        config, models = run.config, run.models
        rows |= {**vars(config), "budget": asdict(config.budget)}
        rows |= {"model": models.name, "clip": models.clip.name}
    else:  # a climb of a score of one's own
        rows["score"] = run.score
    return {name: json.dumps(value, default=text_of, sort_keys=True) for name, value in rows.items()}


def device_of(run: Run[Any]) -> torch.device:
    """Return where a run's tensors are."""
    return run.models.device if hasattr(run, "models") else run.start.parameters()[0].device


def text_of(value: Any) -> Any:  # noqa: ANN401
    """Return as JSON can what it does not hold: tensors by digest, scores by parts, others by their text."""
    import torch

    from fusedream_nb.method.scores import Score

    if isinstance(value, Score):
        parts = {name: part for name, part in vars(value).items() if name != "at_once"}  # goes with memory
        return {"is": type(value).__name__, **parts}
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    if hasattr(value, "parameters"):  # a start, which the run moves
        return f"{type(value).__name__} {[list(t.shape) for t in value.parameters()]}"
    fields = vars(value) if is_dataclass(value) else {}
    tensors = {name: text_of(each) for name, each in fields.items() if isinstance(each, torch.Tensor)}
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type(value).__name__} {tensors}" if tensors else repr(value))
