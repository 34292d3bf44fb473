"""A paper's claim as a checked line: reported where it is shown, compared by tests, kept for the report.

The line that :func:`claim` prints holds no numbers, so it is the same on every machine as long as the
claim's verdict is; :func:`numbers_line` gives the numbers, in a cell that nothing compares.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat, TypeAlias

if TYPE_CHECKING:  # the report reads claims too, and takes no torch
    from torch import Tensor

    from fusedream_nb.method.budgets import Budget

Number: TypeAlias = "SupportsFloat | Sequence[SupportsFloat | None] | Tensor | None"


@dataclass(frozen=True)
class Claim:
    """One claim of a figure, whether it holds here, the numbers behind it, and whether these count."""

    figure: str
    statement: str
    holds: bool
    numbers: dict[str, float | None | list[float | None]]
    counts: bool = True


def claim(
    figure: str, statement: str, holds: bool | Tensor, *, sizes: Budget | None = None, **numbers: Number
) -> bool:
    """Print ``figure · statement · holds`` (or ``differs``), keep the numbers, return the verdict.

    With FUSEDREAM_CLAIMS set to a file's path, a line of JSON is appended there.

    Args:
        figure: the id of a figure or notebook, "fd-02".
        statement: what is claimed, without numbers.
        holds: the verdict.
        sizes: the budget behind it; where its verdicts do not count, the line says that instead.
        numbers: what the verdict rests on: one value, or one per seed.

    Raises ValueError for a blank figure or statement.
    """
    if not figure.strip() or not statement.strip():
        raise ValueError("A claim requires a statement and the id of its figure; one of them is blank.")
    made = Claim(
        " ".join(figure.split()),
        " ".join(statement.split()),
        bool(holds),
        {name: _plain(value) for name, value in numbers.items()},
        sizes is None or sizes.counts,
    )
    verdict = ("holds" if made.holds else "differs") if made.counts else "not counted"
    print(f"{made.figure} · {made.statement} · {verdict}")
    if path := os.environ.get("FUSEDREAM_CLAIMS"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(made), ensure_ascii=False) + "\n")
    return made.holds


@contextmanager
def check(exercise: str, *answers: object) -> Iterator[None]:
    """Run an exercise's asserts; print "right", or one sentence on what is missing, and never raise.

    Args:
        exercise: its number and name.
        answers: the values that the reader writes; None says that one is still to be written.
    """
    try:
        yield
        result = "right"
    except AssertionError as gap:
        result = f"not yet: {gap}"
    except NotImplementedError:
        result = "still to write"
    except Exception as error:
        result = f"not yet: your code stops with {type(error).__name__}, {' '.join(str(error).split())}"
    result = "still to write" if any(answer is None for answer in answers) else result
    print(f"{exercise} · {result.rstrip('.')}.")


def read_claims(path: str | Path) -> list[Claim]:
    """Return the claims in a file that :func:`claim` wrote, the last verdict of each; [] if there is none."""
    lines = Path(path).read_text("utf-8").splitlines() if Path(path).exists() else []
    made = [Claim(**json.loads(line)) for line in lines]
    return list({(one.figure, one.statement): one for one in made}.values())


def numbers_line(**numbers: Number) -> str:
    """Return ``name value`` for each number, ``mean ± sd (n = …)`` for one per seed, joined by dots."""
    return " · ".join(f"{name.replace('_', ' ')} {_spoken(value)}" for name, value in numbers.items())


def clear(values: Sequence[float] | Tensor) -> bool:
    """Say whether the mean of values, one per seed or prompt, lies more than two standard errors above zero.

    A single value is never clear, nor are values that are not all finite.
    """
    numbers = _floats(values)
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):  # the statistics module raises
        return False
    return statistics.fmean(numbers) > 2 * statistics.stdev(numbers) / len(numbers) ** 0.5


def share(outcomes: Sequence[bool] | Tensor) -> str:
    """Return how often outcomes [n] are true, with Wilson's 95% interval: "14 of 20 (70%, 48–85%)".

    Raises ValueError for no outcomes.
    """
    hits, n, low, high = _wilson(outcomes)
    return f"{hits} of {n} ({hits / n:.0%}, {100 * low:.0f}–{high:.0%})"


def most(outcomes: Sequence[bool] | Tensor, above: float = 0.5) -> bool:
    """Say whether the whole of Wilson's 95% interval of a share lies above a level, one half by default.

    Raises ValueError for no outcomes.
    """
    return _wilson(outcomes)[2] > above


def _wilson(outcomes: Sequence[bool] | Tensor) -> tuple[int, int, float, float]:
    """Return hits, trials, and the ends of Wilson's 95% interval of the share."""
    from scipy.stats import binomtest

    hits = [bool(x) for x in _floats(outcomes)]
    if not hits:
        raise ValueError("A share requires at least one outcome; there is none.")
    low, high = binomtest(sum(hits), len(hits)).proportion_ci(0.95, method="wilson")
    return sum(hits), len(hits), low, high


def _floats(value: Number) -> list[float]:
    """Return a number, or one per seed, as floats; None, which JSON has for what is not finite, as NaN."""
    flatten = getattr(value, "flatten", None)  # of a tensor
    listed = flatten().tolist() if flatten else value if isinstance(value, Sequence) else [value]
    return [math.nan if x is None else float(x) for x in listed]


def _spoken(value: Number) -> str:
    numbers = _floats(value)
    if not numbers:
        return "none"
    if len(numbers) == 1:
        return f"{numbers[0]:.3g}"
    if not all(map(math.isfinite, numbers)):  # the statistics module raises
        return f"not finite (n = {len(numbers)})"
    return f"{statistics.fmean(numbers):.3g} ± {statistics.stdev(numbers):.2g} (n = {len(numbers)})"


def _plain(value: Number) -> float | None | list[float | None]:
    """Return a value that strict JSON can hold: floats, None for what is not finite."""
    finite = [x if math.isfinite(x) else None for x in _floats(value)]
    is_single = getattr(value, "ndim", 0) == 0 and not isinstance(value, Sequence)
    return finite[0] if is_single else finite
