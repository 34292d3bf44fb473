"""``fusedream-nb reproduce`` and ``figures``: the papers' figures, drawn again by their notebooks."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from fusedream_nb.cli.terminal import Device, Json, Model, Size, Stopped, say, table
from fusedream_nb.records import png

if TYPE_CHECKING:
    from fusedream_nb.reproduce.report import Result

EXAMPLES = (
    "Examples:\n\nfusedream-nb reproduce fd-02 fd-03\n\n"
    "fusedream-nb reproduce all --budget gallery --jobs 2 --out figures\n\nfusedream-nb reproduce 02 --check"
)


def reproduce(
    figures: Annotated[
        list[str],
        Argument(metavar="FIGURE", help="Ids, see `figures`; or notebooks' numbers, or all."),
    ],
    model: Model = None,
    budget: Size = None,
    device: Device = None,
    seed: Annotated[int | None, Option(min=0, help="Instead of each notebook's own.")] = None,
    out: Annotated[Path, Option(help="Folder of figures and report.")] = Path("fusedream-out/figures"),
    at_once: Annotated[int, Option("--jobs", min=1, max=64, help="How many notebooks at a time.")] = 1,
    check: Annotated[
        bool, Option("--check", help="Compare the claims' verdicts with those in the notebooks' files.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the notebooks that draw the papers' figures; collect these, their claims and what they cost.

    The folder gets the figures, the notebooks as they ran, index.html, REPORT.md and claims.json.

    Ctrl-C stops; the same command goes on after the notebooks that are done.

    Exit code 1 where a notebook failed or drew no such figure. A claim that differs is no failure; with
    --check, a verdict that is not the committed one is.
    """
    if check and as_json:
        raise ValueError("--check prints a line for each notebook; leave out --json.")
    from fusedream_nb.reproduce import report, runner
    from fusedream_nb.reproduce.figures import chosen, notebooks

    wanted, results = chosen(figures), []
    paths = notebooks(figures)
    settings = runner.settings(model, budget or ("quick" if check else None), device, seed)
    png.check_folder(out)
    try:
        with closing(runner.run(paths, settings, out, jobs=at_once, report=say)) as run:
            for result in run:
                results.append(result)
                report.write(out)
                say(report.line(result))
    except KeyboardInterrupt:
        done = f"{len(results)} of {len(paths)} notebooks have run"
        raise Stopped(f"Stopped; {done}, and the same command goes on from there.") from None
    if check:
        raise typer.Exit(_compared(results, {path.stem: path for path in paths}))
    drawn = [(figure.id, *report.status(figure, results)) for figure in wanted]
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        table(drawn)
        print(out / "index.html")
    if any(result.failure for result in results) or any(state == "not drawn" for _, state, _ in drawn):
        raise typer.Exit(1)


def _compared(results: list[Result], paths: dict[str, Path]) -> int:
    """Print a line for each notebook; return 1 if one of them failed or gave another verdict, else 0."""
    from fusedream_nb.reproduce.report import line, verdicts

    code = 0
    for result in sorted(results, key=lambda result: result.notebook):
        surprises = result.surprises(paths[result.notebook])
        if result.failure:
            print(line(result))
        elif surprises:
            print(f"{result.notebook}: not as committed: {'; '.join(surprises)}")
        else:
            print(f"{result.notebook}: as committed ({verdicts(result.claims)})")
        code = max(code, int(bool(result.failure or surprises)))
    return code


def figures(as_json: Json = False) -> None:
    """List the papers' figures: what each shows, its notebook, and whether it can be made."""
    from fusedream_nb.reproduce.figures import listing

    if as_json:
        print(json.dumps(listing(), indent=1))
    else:
        table([row[name] for name in ("id", "notebook", "status", "caption")] for row in listing())
