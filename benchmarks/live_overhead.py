"""What the live studio costs: the share of time that goes to steps, and how memory grows.

python benchmarks/live_overhead.py --steps 200 --long 5000
"""

from __future__ import annotations

import argparse
import time

import psutil

import fusedream_nb as fd
from fusedream_nb.models import Models
from fusedream_nb.notebook.live import Session
from fusedream_nb.notebook.panel import Panel


def main() -> None:
    """Print the share of a session's time that its run's own steps take, and the growth of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--long", type=int, default=5000, help="steps of the test of memory")
    options = parser.parse_args()
    models = fd.load()
    told = share(session(models, options.steps, copies=12))
    print(f"time: {told:.1%} goes to steps", flush=True)
    long = session(models, options.long, copies=1)
    advance(long, 200)
    before = memory()
    advance(long, options.long)
    print(f"memory: {memory() - before:+.1f} MB over {options.long - 200} steps, a knob turned at each")


def session(models: Models, steps: int, copies: int) -> Session:
    """Return a session with its panel, of a run without a search for its start."""
    made = Session(fd.fusedream("a blue dog", models, M=5, steps=steps, copies=copies))
    Panel(made)
    return made


def share(made: Session) -> float:
    """Return which share of a session's time, after its first step, its run's own steps take."""
    made.advance()
    spent, following = [0.0], made.run.__class__.__next__

    def timed(run: object) -> object:
        began = time.perf_counter()
        try:
            return following(run)
        finally:
            spent[0] += time.perf_counter() - began

    measured = type("Measured", (made.run.__class__,), {"__next__": timed})
    made.run.__class__ = measured
    began = time.perf_counter()
    made.result()
    return spent[0] / (time.perf_counter() - began)


def advance(made: Session, steps: int) -> None:
    """Make steps up to a number, a knob turned before each."""
    while made.going and (made.step is None or made.step.index < steps):
        made.advance()
        made.set(noise=0.001 * (made.step.index % 2) if made.step else 0.0)


def memory() -> float:
    """Return this process's memory in MB."""
    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    main()
