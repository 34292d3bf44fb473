"""All results in a folder as one page: ``index.html``, ``REPORT.md`` and ``claims.json``.

Whatever comes from a notebook is escaped: a page's reader sees a text, and never runs it.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from fusedream_nb.notebook.claims import numbers_line
from fusedream_nb.records import png
from fusedream_nb.reproduce import figures
from fusedream_nb.reproduce.results import Result, read

SETTINGS = ("model", "budget", "device", "seed")


def write(out: Path) -> Path:
    """Write the three files anew from every result in a folder; return the path of ``index.html``."""
    results = [found for path in sorted(out.glob("*.json")) if (found := read(path))]
    page = {"summary": _summary(results), "runs": [_run(result, out) for result in results]}
    told = [{"notebook": result.notebook, **claim} for result in results for claim in result.claims]
    texts = {
        "claims.json": json.dumps(told, ensure_ascii=False, indent=1) + "\n",
        "REPORT.md": re.sub(r"\n{3,}", "\n\n", _render("report.md.j2", page)),
        "index.html": _render("report.html.j2", page),
    }
    png.write({out / name: text.encode("utf-8", "replace") for name, text in texts.items()})
    return out / "index.html"


def command(figure: str, made_by: dict[str, Any]) -> str:
    """Return the command that draws a figure with the settings of a result."""
    given = [(name, made_by[name]) for name in SETTINGS if made_by.get(name) is not None]
    options = [part for name, value in given for part in (f"--{name}", str(value))]
    return shlex.join(["fusedream-nb", "reproduce", figure, *options])


def verdicts(claims: list[dict[str, Any]]) -> str:
    """Return how many claims hold and how many differ."""
    hold = sum(claim["holds"] for claim in claims)
    return f"{hold} hold, {len(claims) - hold} differ" if claims else "no claims"


def line(result: Result) -> str:
    """Return in a line how a notebook went."""
    if result.failure:
        cell = f" in the cell {result.failure['cell']}" if result.failure["cell"] else ""
        return f"{result.notebook}: failed{cell}: {result.failure['error']}"
    return f"{result.notebook}: {cost(result)}; {verdicts(result.claims)}"


def standing(figure: figures.PaperFigure, results: list[Result]) -> tuple[str, str]:
    """Return whether a figure was drawn by one of the results, and its claims' verdicts."""
    number = figure.notebook
    found = next(
        (one for one in results if one.notebook.startswith(f"{number}_") or one.drew(figure.id)), None
    )
    if found is None:
        return "no notebook", ""
    state = "failed" if found.failure else "drawn" if found.drew(figure.id) else "not drawn"
    return state, verdicts([claim for claim in found.claims if _owner(claim) == figure.id])


def cost(result: Result) -> str:
    """Return a result's seconds and its kernel's peak memory, where that is known."""
    memory = f", {result.peak / 1e6:,.0f} MB at most" if result.peak else ""
    return f"{result.seconds:,.0f} s{memory}"


def _summary(results: list[Result]) -> str:
    claims = [claim for result in results for claim in result.claims]
    failed = sum(result.failure is not None for result in results)
    said = f"{len(results)} notebooks, {failed} of them failed. Claims: {verdicts(claims)}."
    return f"{said} A claim that differs is a result: its notebook says why."


def _run(result: Result, out: Path) -> dict[str, Any]:
    """Return what the templates want to know of a notebook."""
    executed = f"{result.notebook}.ipynb"
    shown = [f"{name} {result.made_by[name]}" for name in SETTINGS if result.made_by.get(name) is not None]
    return {
        "notebook": result.notebook,
        "settings": ", ".join(shown),
        "cost": cost(result),
        "finished": result.finished,
        "executed": executed if (out / executed).exists() else "",
        "failure": result.failure,
        "blocks": _blocks(result),
    }


def _blocks(result: Result) -> list[dict[str, Any]]:
    """Return the notebook's figures in the papers' order, and at the end what belongs to none."""
    number = result.notebook.partition("_")[0]
    expected = [f for f in figures.FIGURES if f.notebook == number or result.drew(f.id)]
    blocks = [
        {
            "id": figure.id,
            "caption": figure.caption,
            "paper": figure.paper,
            "command": command(figure.id, result.made_by),
            **_content(result, figure.id),
        }
        for figure in expected
    ]
    ids = {figure.id for figure in expected}
    others = _content(result, *{_owner(claim) for claim in result.claims} - ids, None)
    return [*blocks, {"caption": "Also in this notebook", **others}] if any(others.values()) else blocks


def _content(result: Result, *ids: str | None) -> dict[str, Any]:
    """Return the pictures, drawings and claims that belong to figures, None to no figure."""
    files = [row for row in result.figures if figures.owner(Path(row["file"]).stem) in ids]
    return {
        "pictures": [row for row in files if row["file"].endswith(".png")],
        "drawings": [row["file"] for row in files if row["file"].endswith(".svg")],
        "claims": [_claim(claim) for claim in result.claims if _owner(claim) in ids],
    }


def _owner(claim: dict[str, Any]) -> str | None:
    return figures.owner(claim["figure"])


def _claim(claim: dict[str, Any]) -> dict[str, str]:
    verdict = "holds" if claim["holds"] else "differs"
    return {
        "statement": claim["statement"],
        "ours": numbers_line(**claim["numbers"]),
        "verdict": verdict,
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
