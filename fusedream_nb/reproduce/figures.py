"""Every figure and table of the two papers: what it shows, which notebook draws it, whether that is there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PaperFigure:
    """One figure or table: its id, a caption in our words, and the number of its notebook.

    ``paper`` is what the paper prints in numbers, where it does.
    """

    id: str
    caption: str
    notebook: str
    paper: str = ""


FIGURES = (
    PaperFigure("fd-01", "Three prompts about dogs: naive Adam, BigSleep, FuseDream at two sizes", "05"),
    PaperFigure("fd-02", "One signed step of attack on CLIP, and on AugCLIP", "01"),
    PaperFigure("fd-03", "From a dog to a cat, by climbing CLIP and by climbing AugCLIP", "02"),
    PaperFigure("fd-04", "What the start and the over-parameterised latent add: M and k varied", "04"),
    PaperFigure("fd-05", "A composed picture through its iterations, and its two curves", "07"),
    PaperFigure("fd-06", "Styles; backgrounds, textures and weather; longer prompts", "05"),
    PaperFigure("fd-07", "Captions of a test set, drawn by FuseDream and by others", "10"),
    PaperFigure("fd-08", "Things that do not exist: the best three of five seeds", "05"),
    PaperFigure("fd-09", "Prompts with two objects: one picture against a composed one", "09"),
    PaperFigure("fd-10", "One prompt, many seeds: the best 36 of 50 composed pictures", "09"),
    PaperFigure("fd-11", "Bi-level against nine linear mixtures and the inverse bi-level", "08"),
    PaperFigure("fd-12", "A start whose class vector is drawn from N(0, I): it stays noise", "04"),
    PaperFigure("fd-13", "On the straight line between the latents of two results", "05"),
    PaperFigure("fd-14", "The five pictures that a run starts from", "04"),
    PaperFigure("fd-15", "AugCLIP with each augmentation alone, and with all of them", "03"),
    PaperFigure("fd-16", "Out of the generator's domain, beside the real thing", "05"),
    PaperFigure(
        "fd-17", "BasinCMA instead of Adam, in equal time and in six times the time", "06",
        "about 5 and 30 minutes on a GTX 3090",
    ),
    PaperFigure("fd-18", "Four times the resolution", "05"),
    PaperFigure(
        "fd-table-1", "Inception score, FID and two R-precisions on captions of a test set", "10",
        "FuseDream, k = 5, 256 px: IS 34.26 ± 0.76, FID 21.16, CLIP R-precision 96.43 ± 0.24, "
        "R-precision 65.56 ± 1.37; BigSleep: 13.32 ± 0.45, 66.46, 91.89 ± 0.31, 28.75 ± 3.32",
    ),
    PaperFigure("ot-01", "Two prompts at once: transport against the mean, and how it is done", "11"),
    PaperFigure("ot-02", "A theme park and a city by day in one picture: transport, mean", "11"),
    PaperFigure(
        "ot-03", "The 64 patches of those pictures, grouped by the prompt they are nearest to", "11",
        "36/28 by transport, 49/15 by the mean",
    ),
    PaperFigure("ot-04", "The patches' gradients, pushed forward onto the plane of the two costs", "12"),
    PaperFigure("ot-05", "Six prompts, each alone, then one to six of them together", "13"),
    PaperFigure("ot-06", "The same arrows for three and for six prompts, in slices", "13"),
    PaperFigure("new", "Beyond the papers: transport inside FuseDream", "14"),
)  # fmt: skip


def chosen(names: Iterable[str]) -> list[PaperFigure]:
    """Return the figures of some ids or notebooks' numbers in the papers' order; "all" is every one.

    Raises ValueError listing the known ids.
    """
    wanted, known = {name.lower() for name in names}, [figure.id for figure in FIGURES]
    if wrong := sorted(name for name in wanted - {*known, "all"} if not re.fullmatch(r"\d\d", name)):
        raise ValueError(f"No figure is called {wrong[0]!r}; known are all, {', '.join(known)}.")
    return [figure for figure in FIGURES if wanted & {"all", figure.id, figure.notebook}]


def owner(name: str) -> str | None:
    """Return the id of the figure that a part such as "fd-05-curves" belongs to, None if to none."""
    return next((f.id for f in FIGURES if name == f.id or name.startswith(f"{f.id}-")), None)


def folder() -> Path:
    """Return the notebooks' folder: FUSEDREAM_NOTEBOOKS, else that of the repository, else ./notebooks."""
    if given := os.environ.get("FUSEDREAM_NOTEBOOKS"):
        return Path(given)
    beside = Path(__file__).parents[2] / "notebooks"
    return beside if beside.is_dir() else Path("notebooks")


def _there() -> dict[str, Path]:
    """Return the notebooks' files by their numbers, in order."""
    return {path.name[:2]: path for path in sorted(folder().glob("[0-9][0-9]_*.ipynb"))}


def notebooks(names: Iterable[str]) -> list[Path]:
    """Return the files of the notebooks that hold some figures, or have some numbers; "all" is every one.

    Raises ValueError as :func:`chosen` does, and FileNotFoundError for a figure without its notebook.
    """
    wanted, there = {name.lower() for name in names}, _there()
    numbers = {figure.notebook: f"{figure.id} is drawn by notebook" for figure in chosen(wanted)}
    if "all" in wanted and there:
        return list(there.values())
    numbers |= {name: "You asked for notebook" for name in wanted if name.isdigit()}
    for number in sorted(numbers.keys() - there.keys()):
        raise FileNotFoundError(
            f"{numbers[number]} {number}, which is not in {folder()}; "
            "set FUSEDREAM_NOTEBOOKS to the folder of the repository's notebooks."
        )
    return sorted(there[number] for number in numbers)


def listing() -> list[dict[str, Any]]:
    """Return a row for each figure: what the table holds, the notebook's file name, and its status."""
    rows, there = [], _there()
    for figure in FIGURES:
        path = there.get(figure.notebook)
        found = {"notebook": path.name, "status": "ready"} if path else {"status": "no notebook"}
        rows.append(asdict(figure) | found)
    return rows
