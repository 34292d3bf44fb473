"""What notebooks gave when they were run: kept beside their figures, and shown as one page.

The page is ``index.html``, ``REPORT.md`` and ``claims.json``. Whatever comes from a notebook is escaped: a
page's reader sees a text, and never runs it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusedream_nb.notebook.claims import numbers_line, read_claims
from fusedream_nb.records import png
from fusedream_nb.reproduce import figures
from fusedream_nb.reproduce.pool import EXECUTED, FIGURES, LOG, OUTCOME

VERDICT = re.compile(r"^(.+?) · (.+) · (holds|differs|not counted)$", re.MULTILINE)  # as a claim is printed
SETTINGS = ("model", "budget", "device", "seed")
Block = tuple[figures.PaperFigure | None, list[dict[str, str]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Result:
    """What one notebook gave: figures (file, alt), claims, seconds, bytes, and how it failed, if so.

    ``made_by`` are the settings, the notebook's and the weights' SHA-256, and the versions.
    """

    notebook: str
    made_by: dict[str, Any]
    figures: list[dict[str, str]]
    claims: list[dict[str, Any]]
    seconds: float
    peak: int | None
    failure: dict[str, str] | None
    finished: str

    def drew(self, figure: str) -> bool:
        """Whether a figure of this id, or a part of one, is there."""
        return any(figures.owner(Path(row["file"]).stem) == figure for row in self.figures)

    def is_whole(self, out: Path) -> bool:
        """Whether the notebook ran through and all that it gave is still in the folder."""
        names = [row["file"] for row in self.figures]
        return not self.failure and all((out / name).exists() for name in (*names, f"{self.notebook}.ipynb"))

    def surprises(self, notebook: Path) -> list[str]:
        """Return how the claims' verdicts differ from those that the committed notebook shows.

        Cells tagged ``close-call`` are not compared: their verdicts turn with the seed or the budget.
        """
        shown: dict[str, str] = {}
        now = {f"{claim['figure']} · {claim['statement']}": verdict(claim) for claim in self.claims}
        for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
            text = "\n".join("".join(output.get("text", "")) for output in cell.get("outputs", []))
            found = {f"{figure} · {claim}": word for figure, claim, word in VERDICT.findall(text)}
            if "close-call" in cell["metadata"].get("tags", []):
                found = {claim: now.get(claim, "nothing") for claim in found}
            shown |= found
        return [
            f"{claim}: {now.get(claim, 'nothing')}, committed {shown.get(claim, 'nothing')}"
            for claim in {**shown, **now}
            if now.get(claim, "nothing") != shown.get(claim, "nothing")
        ]


def verdict(claim: dict[str, Any]) -> str:
    """Return a claim's verdict, as it is printed."""
    return "not counted" if not claim.get("counts", True) else "holds" if claim["holds"] else "differs"


def read(path: Path) -> Result | None:
    """Return the result in a file, None where there is none that this version understands."""
    with suppress(OSError, ValueError, TypeError):
        return Result(**json.loads(path.read_text("utf-8")))
    return None


def collect(name: str, made_by: dict[str, Any], scratch: Path, code: int, out: Path) -> Result:
    """Move what a notebook left in its scratch folder to ``out``; return its result.

    ``code`` is what its process ended with. The result's file, ``<name>.json``, comes last.
    """
    from PIL import Image

    def alt(path: Path) -> str:
        with suppress(OSError), Image.open(path) as picture:
            return str(picture.info.get("Description", ""))
        return ""

    drawn = sorted(path for path in (scratch / FIGURES).glob("[!.]*") if path.suffix in (".png", ".svg"))
    result = Result(
        name,
        made_by,
        [{"file": path.name, "alt": alt(path.with_suffix(".png"))} for path in drawn],
        [asdict(claim) for claim in read_claims(scratch / "claims.jsonl")],
        **_outcome(scratch, code),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    old = read(out / f"{name}.json")
    (out / f"{name}.json").unlink(missing_ok=True)
    for file in {row["file"] for row in old.figures} - {path.name for path in drawn} if old else ():
        (out / Path(file).name).unlink(missing_ok=True)
    for path in drawn:
        path.replace(out / path.name)
    if (scratch / EXECUTED).exists():
        (scratch / EXECUTED).replace(out / f"{name}.ipynb")
    text = json.dumps(asdict(result), ensure_ascii=False, indent=1)
    png.write({out / f"{name}.json": text.encode("utf-8", "replace")})
    shutil.rmtree(scratch, ignore_errors=True)
    return result


def _outcome(scratch: Path, code: int) -> dict[str, Any]:
    """Return seconds, peak and failure, also of a process that could not report them."""
    with suppress(OSError, ValueError):
        return json.loads((scratch / OUTCOME).read_text("utf-8"))
    error = f"The notebook's process ended with code {code}."
    log = (scratch / LOG).read_text("utf-8", "replace") if (scratch / LOG).exists() else ""
    failure = {"cell": "", "source": "", "error": error, "traceback": log}
    return {"seconds": 0.0, "peak": None, "failure": failure}


def write(out: Path) -> Path:
    """Write the three files again from every result in a folder; return the path of ``index.html``."""
    results = [found for path in sorted(out.glob("*.json")) if (found := read(path))]
    claims = [{"notebook": result.notebook, **claim} for result in results for claim in result.claims]
    failed = sum(result.failure is not None for result in results)
    summary = (
        f"{len(results)} notebooks, {failed} of them failed. Claims: {verdicts(claims)}. "
        "A claim that differs is a result: its notebook says why."
    )
    page = {"summary": summary, "results": results, "there": {path.name for path in out.iterdir()}}
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
    text = f"{found['holds']} hold, {found['differs']} differ" if claims else "no claims"
    return f"{text}, {found['not counted']} not counted" if found["not counted"] else text


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


def _given(result: Result) -> dict[str, str]:
    """Return the settings that a notebook was run with."""
    return {name: str(result.made_by[name]) for name in SETTINGS if result.made_by.get(name) is not None}


def _command(figure: figures.PaperFigure, result: Result) -> str:
    """Return what draws a figure again as in a result."""
    options = [part for name, value in _given(result).items() for part in (f"--{name}", value)]
    return shlex.join(["fusedream-nb", "reproduce", figure.id, *options])


def _blocks(result: Result) -> list[Block]:
    """Return a notebook's figures in the papers' order, their files and claims; at the end, what is left."""
    number = result.notebook.partition("_")[0]
    shown = [f for f in figures.FIGURES if f.notebook == number or result.drew(f.id)]
    blocks: dict[str | None, Block] = {f.id: (f, [], []) for f in shown} | {None: (None, [], [])}
    for row in result.figures:
        blocks[figures.owner(Path(row["file"]).stem)][1].append(row)
    for claim in result.claims:
        blocks.get(figures.owner(claim["figure"]), blocks[None])[2].append(claim)
    return [block for block in blocks.values() if any(block)]


def _render(name: str, page: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader

    loader, html = PackageLoader("fusedream_nb.reproduce"), name.endswith(".html.j2")
    world = Environment(loader=loader, autoescape=html, trim_blocks=True, lstrip_blocks=True)
    world.filters["md"] = _markdown
    world.globals |= {"blocks": _blocks, "command": _command, "cost": _cost, "given": _given}
    world.globals |= {"numbers_line": numbers_line, "verdict": verdict}
    return world.get_template(name).render(page)


def _markdown(text: str) -> str:
    """Return a text on one line with everything that Markdown or HTML would read written as itself."""
    return re.sub(r"([\\`*_{}\[\]<>#|&!$~@])", r"\\\1", " ".join(text.split()))
