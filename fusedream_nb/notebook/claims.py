"""A paper's claim as a checked line: told where it is shown, compared by nbval, kept for the report.

The line that :func:`claim` prints holds no numbers, so it is the same on every machine as long as the
claim's verdict is; :func:`numbers_line` says the numbers, in a cell that nothing compares.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import SupportsFloat

from torch import Tensor

Number = SupportsFloat | Sequence[SupportsFloat] | Tensor

_TOLD: list[Claim] = []


@dataclass(frozen=True)
class Claim:
    """One claim of a figure, whether it holds here, and the numbers it was judged by."""

    figure: str
    statement: str
    holds: bool
    numbers: dict[str, float | None | list[float | None]]


def claim(figure: str, statement: str, holds: bool | Tensor, **numbers: Number) -> bool:
    """Print ``figure · statement · holds`` (or ``differs``), keep the numbers, return the verdict.

    ``figure`` is the id of a figure or notebook ("fd-02"), ``numbers`` are what the verdict rests on:
    one value, or one for each seed. With FUSEDREAM_CLAIMS set to a file's path, a line of JSON is
    appended there. Raises ValueError for a blank figure or statement.
    """
    if not figure.strip() or not statement.strip():
        raise ValueError("A claim wants the id of its figure and a statement; one of them is blank.")
    told = Claim(
        " ".join(figure.split()),
        " ".join(statement.split()),
        bool(holds),
        {name: _plain(value) for name, value in numbers.items()},
    )
    _TOLD.append(told)
    print(f"{told.figure} · {told.statement} · {'holds' if told.holds else 'differs'}")
    if path := os.environ.get("FUSEDREAM_CLAIMS"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(told), ensure_ascii=False) + "\n")
    return told.holds


def claims() -> list[Claim]:
    """Return the claims told in this process so far, the oldest first."""
    return list(_TOLD)


def numbers_line(**numbers: Number) -> str:
    """Return ``name value`` for each number, ``mean ± sd (n = …)`` for one a seed, joined by dots."""
    return " · ".join(f"{name.replace('_', ' ')} {_spoken(value)}" for name, value in numbers.items())


def _floats(value: Number) -> list[float]:
    if isinstance(value, Tensor):
        return [float(x) for x in value.detach().flatten().tolist()]
    return [float(x) for x in value] if isinstance(value, Sequence) else [float(value)]


def _spoken(value: Number) -> str:
    numbers = _floats(value)
    if not numbers:
        return "none"
    if len(numbers) == 1:
        return f"{numbers[0]:.3g}"
    return f"{statistics.fmean(numbers):.3g} ± {statistics.stdev(numbers):.2g} (n = {len(numbers)})"


def _plain(value: Number) -> float | None | list[float | None]:
    """Return a value that strict JSON can hold: floats, None for what is not finite."""
    finite = [x if math.isfinite(x) else None for x in _floats(value)]
    is_single = value.ndim == 0 if isinstance(value, Tensor) else not isinstance(value, Sequence)
    return finite[0] if is_single else finite
