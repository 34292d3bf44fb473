"""What a terminal shows: sentences, tables and one progress bar, never what could steer it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from fusedream_nb.method.run import Step

LABEL = 32  # characters of the prompt that the progress bar shows


class Stopped(Exception):
    """Ctrl-C, after what could be kept was kept; says what."""


def say(text: str) -> None:
    """Tell one sentence on stderr."""
    print(f"fusedream-nb: {plain(' '.join(text.split()))}", file=sys.stderr)


def plain(text: str) -> str:
    """Return a text with everything that could steer a terminal written out as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(rows: Iterable[Iterable[str]]) -> None:
    """Print rows of cells on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        grid.add_row(*(Text(plain(cell), overflow="fold") for cell in row))
    Console().print(grid)


class Bar:
    """One progress bar on stderr for all batches of a command."""

    def __init__(self, batches: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[unit]}"),
            console=Console(stderr=True),
            redirect_stdout=False,
        )
        self.task = self.progress.add_task("", total=None, state="", unit="")
        self.batches, self.done = batches, -1

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def next(self, prompts: Sequence[str]) -> Callable[[Step], object]:
        """Begin the next batch; return what is to be called with each of its steps."""
        self.done += 1
        self.progress.update(self.task, description="choosing a start")
        label = plain(prompts[0]) if len(prompts) == 1 else f"{len(prompts)} pictures"
        self.label = label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"
        return self._show

    def _show(self, step: Step) -> None:
        total = max(step.total, 1)  # no steps at all is a finished run too
        best = step.best_score.max() if hasattr(step, "winner") else step.best_score.mean()
        done = self.done * total + (step.index if step.total else 1)
        self.progress.update(
            self.task,
            description=self.label,
            total=self.batches * total,
            completed=done,
            state=f"score {float(best):.3f}  step {step.index}/{step.total}",
            unit="left" if done < self.batches * total else "in all",
        )
