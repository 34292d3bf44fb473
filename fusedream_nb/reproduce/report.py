"""All results in a folder as one page: ``index.html``, ``REPORT.md`` and ``claims.json``.

Whatever comes from a notebook is escaped: a page's reader sees a text, and never runs it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusedream_nb.notebook.claims import numbers_line
from fusedream_nb.records import png
from fusedream_nb.reproduce import figures
from fusedream_nb.reproduce.results import Result, read, verdict

SETTINGS = ("model", "budget", "device", "seed")


def write(out: Path) -> Path:
    """Write the three files anew from every result in a folder; return the path of ``index.html``."""
    results = [found for path in sorted(out.glob("*.json")) if (found := read(path))]
    claims = [{"notebook": result.notebook, **claim} for result in results for claim in result.claims]
    failed = sum(result.failure is not None for result in results)
    summary = (
        f"{len(results)} notebooks, {failed} of them failed. Claims: {verdicts(claims)}. "
        "A claim that differs is a result: its notebook says why."
    )
    page = {"summary": summary, "runs": [_run(result, out) for result in results]}
    texts = {
        "claims.json": json.dumps(claims, ensure_ascii=False, indent=1) + "\n",
        "REPORT.md": re.sub(r"\n{3,}", "\n\n", _render("report.md.j2", page)),
        "index.html": _render("report.html.j2", page),
    }
    png.write({out / name: text.encode("utf-8", "replace") for name, text in texts.items()})
    return out / "index.html"


def verdicts(claims: Sequence[dict[str, Any]]) -> str:
    """Return how many claims hold, how many differ, and how many do not count, if there are such."""
    found = Counter(map(verdict, claims))
    told = f"{found['holds']} hold, {found['differs']} differ" if claims else "no claims"
    return f"{told}, {found['not counted']} not counted" if found["not counted"] else told


def line(result: Result) -> str:
    """Return in a line how a notebook went."""
    if result.failure:
        cell = f" in the cell {result.failure['cell']}" if result.failure["cell"] else ""
        return f"{result.notebook}: failed{cell}: {result.failure['error']}"
    return f"{result.notebook}: {_cost(result)}; {verdicts(result.claims)}"


def status(figure: figures.PaperFigure, results: Sequence[Result]) -> tuple[str, str]:
    """Return whether a figure was drawn by one of the results, and its claims' verdicts."""
    for found in results:
        if found.notebook.startswith(f"{figure.notebook}_") or found.drew(figure.id):
            state = "failed" if found.failure else "drawn" if found.drew(figure.id) else "not drawn"
            own = [claim for claim in found.claims if figures.owner(claim["figure"]) == figure.id]
            return state, verdicts(own)
    return "no notebook", ""


def _cost(result: Result) -> str:
    """Return a result's seconds and its kernel's peak memory, where that is known."""
    memory = f", {result.peak / 1e6:,.0f} MB at most" if result.peak else ""
    return f"{result.seconds:,.0f} s{memory}"


def _run(result: Result, out: Path) -> dict[str, Any]:
    """Return what the templates show of a notebook: its figures in the papers' order, then all else."""
    executed = f"{result.notebook}.ipynb"
    given = {name: result.made_by[name] for name in SETTINGS if result.made_by.get(name) is not None}
    options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    number = result.notebook.partition("_")[0]
    expected = [f for f in figures.FIGURES if f.notebook == number or result.drew(f.id)]
    blocks = [
        {
            "id": figure.id,
            "caption": figure.caption,
            "paper": figure.paper,
            "command": shlex.join(["fusedream-nb", "reproduce", figure.id, *options]),
            **_content(result, {figure.id}),
        }
        for figure in expected
    ]
    owners: set[str | None] = {figures.owner(claim["figure"]) for claim in result.claims}
    others = _content(result, {*owners, None} - {figure.id for figure in expected})
    if any(others.values()):
        blocks.append({"caption": "Also in this notebook", **others})
    return {
        "notebook": result.notebook,
        "settings": ", ".join(f"{name} {value}" for name, value in given.items()),
        "cost": _cost(result),
        "finished": result.finished,
        "executed": executed if (out / executed).exists() else "",
        "failure": result.failure,
        "blocks": blocks,
    }


def _content(result: Result, ids: set[str | None]) -> dict[str, Any]:
    """Return the pictures, drawings and claims that belong to figures, None to no figure."""
    files = [row for row in result.figures if figures.owner(Path(row["file"]).stem) in ids]
    return {
        "pictures": [row for row in files if row["file"].endswith(".png")],
        "drawings": [row["file"] for row in files if row["file"].endswith(".svg")],
        "claims": [
            {
                "statement": claim["statement"],
                "ours": numbers_line(**claim["numbers"]),
                "verdict": verdict(claim),
            }
            for claim in result.claims
            if figures.owner(claim["figure"]) in ids
        ],
    }


def _render(name: str, page: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader

    world = Environment(
        loader=PackageLoader("fusedream_nb.reproduce"),
        autoescape=name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    world.filters |= {"md": _markdown, "code": _code}
    return world.get_template(name).render(page)


def _markdown(text: str) -> str:
    """Return a text on one line with everything that Markdown or HTML would read written as itself."""
    return re.sub(r"([\\`*_{}\[\]<>#|&!$~@])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Return a text as an indented block, in which Markdown reads nothing."""
    return "\n".join(f"    {line}" for line in text.splitlines())
