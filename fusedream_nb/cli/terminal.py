"""What a terminal shows, never what could steer it: sentences, tables, one progress bar; shared options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Self

from typer import Option

if TYPE_CHECKING:
    from fusedream_nb.method.run import Step

LABEL = 32  # characters that the progress bar shows of what is being made
Model = Annotated[str | None, Option(help="See `fusedream-nb models`.", show_default="stickers")]
Size = Annotated[str | None, Option(help="One of smoke, quick, gallery, colab, paper.")]
Device = Annotated[str | None, Option(help="auto, cpu, cuda or mps.", show_default="auto")]
Json = Annotated[bool, Option("--json", help="Print JSON, for programs.")]


class Stopped(Exception):
    """Ctrl-C, after what could be kept was kept; says what."""


def say(text: str) -> None:
    """Print one sentence on stderr."""
    print(f"fusedream-nb: {plain(' '.join(text.split()))}", file=sys.stderr)


def plain(text: str) -> str:
    """Return a text with everything that could steer a terminal written out as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(rows: Iterable[Iterable[str]], whole: int = 1) -> None:
    """Print rows of cells on stdout, a line each where that is no terminal; break no ``whole`` columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[Text(plain(cell)) for cell in row] for row in rows]
    grid = Table(box=None, show_header=False, pad_edge=False)
    for i in range(max(map(len, cells), default=0)):
        grid.add_column(no_wrap=i < whole, overflow="fold")
    for row in cells:
        grid.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 1_000_000)
    with console.capture() as shown:
        console.print(grid)
    print("\n".join(line.rstrip() for line in shown.get().splitlines()))


class Bar:
    """One progress bar on stderr for everything that a command does, in so many batches."""

    def __init__(self, batches: int = 1) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[state]}", markup=False),
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

    def show(self, done: float, total: float | None, label: str = "", state: str = "") -> None:
        """Say how much is done of how much (None: nobody knows), of what, and how it stands."""
        label = plain(label)
        label = label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"
        unit = "" if total is None else "left" if done < total else "in all"
        self.progress.update(
            self.task, description=label, total=total, completed=done, state=state, unit=unit
        )

    def next(self, prompts: Sequence[str]) -> Callable[[Step], object]:
        """Begin the next of the batches; return what is to be called with each of its steps."""
        self.done += 1
        self.progress.update(self.task, description="choosing a start")

        def show(step: Step) -> None:
            total, best = max(step.total, 1), step.fixed_score()  # no steps at all is a finished run too
            words = map(str, step.knobs.get("prompt", prompts))  # those in force
            label = ", ".join(words) if len(best) == 1 else f"{len(best)} pictures"
            done = self.done * total + (step.index if step.total else 1)
            state = f"score {float(best.mean()):.3f}  step {step.index}/{step.total}"
            self.show(done, self.batches * total, label, state)

        return show
