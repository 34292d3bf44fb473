"""The live studio: a session, its driver, its panel, and where it saves."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from fusedream_nb.method.run import Run
from fusedream_nb.notebook.drive import Mode, choose, drive
from fusedream_nb.notebook.live import Session
from fusedream_nb.records.record import describe, save


def live(
    run: Run[Any],
    *,
    mode: Mode | None = None,
    panel: bool | None = None,
    out: str | Path = "fusedream-out",
    seconds: float = math.inf,
    **knobs: Any,  # noqa: ANN401  numbers and texts
) -> Session:
    """Steer a run while it runs: ``fd.live(fd.fusedream(…))``; return its session.

    ``knobs`` are turned before the first step. ``mode`` is "task" (after the cell has returned), "poll"
    (inside the cell), "inline" (in ``session.result()``), or None: what works where this runs. The panel
    is shown wherever there is a notebook. Pictures are saved in the folder ``out``. After so many
    ``seconds``, pauses included, the run is stopped.
    Raises ValueError for an unknown knob or mode.
    """
    run.set(**knobs)
    session = Session(run, partial(keep, out=Path(out)), seconds)
    mode = mode or choose()
    if panel or (panel is None and mode != "inline"):
        from IPython.display import display

        from fusedream_nb.notebook.panel import Panel

        display(Panel(session).widget)
    drive(session, mode)
    return session


def keep(run: Run[Any], out: Path) -> list[Path]:
    """Save a run's pictures as they stand, each with its record; raises as describe and save do."""
    return [save(image, what, out) for image, what in describe(run)]
