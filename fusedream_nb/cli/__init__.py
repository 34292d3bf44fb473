"""The command line: ``fusedream-nb generate``, ``show``, ``replay``, ``reproduce`` and others."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import fusedream_nb as fd
from fusedream_nb.cli import evaluate_command, generate_command, models_command
from fusedream_nb.cli.generate_command import Device, Json, Model, Size
from fusedream_nb.cli.terminal import Bar, Stopped, say, table
from fusedream_nb.records import png, record
from fusedream_nb.records import replay as again


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 (differs, fails), 2 (bad input) or 130 (Ctrl-C).

    What goes wrong is told in one sentence on stderr; FUSEDREAM_DEBUG=1 gives the traceback instead.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv) or ["--help"])
    except (KeyboardInterrupt, typer.Abort, Stopped) as stop:
        say(str(stop) or "Stopped; nothing was kept.")
        return 130
    except Exception as error:
        if os.environ.get("FUSEDREAM_DEBUG") == "1":
            raise
        return _explain(error)
    return code


def _run(arguments: list[str]) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(str(message))
        code = app(arguments, prog_name="fusedream-nb", standalone_mode=False)
    if code == 130:  # what newer typers make of Ctrl-C
        raise KeyboardInterrupt
    return code or 0


def _explain(error: Exception) -> int:
    """Tell an error in one sentence; return the exit code."""
    sentence, code = str(error), 2
    if hasattr(error, "format_message"):  # typer's own: an unknown option, a number out of range
        sentence = error.format_message()
    elif "OutOfMemory" in type(error).__name__ or "allocate memory" in sentence:
        sentence = "There is not enough memory: take --budget quick, a single seed, or --device cpu."
    elif isinstance(error, OSError) and error.filename is not None:
        sentence = f"{error.filename}: {(error.strerror or 'cannot be used').lower()}."
    elif not isinstance(error, (ValueError, OSError, ArithmeticError)):
        sentence, code = f"{type(error).__name__}: {error} (a fault; FUSEDREAM_DEBUG=1 shows where).", 1
    say(sentence)
    return code


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
File = Annotated[Path, typer.Argument(metavar="FILE.png", help="A picture made by `generate`.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fusedream-nb {fd.__version__}")
        raise typer.Exit


@app.callback(epilog='Example: fusedream-nb generate "a photo of a blue dog"')
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    """Pictures from words, by climbing CLIP in a generator's latent space (FuseDream)."""


app.command(epilog=generate_command.EXAMPLES)(generate_command.generate)


@app.command(epilog="Example: fusedream-nb show fusedream-out/a-photo-of-a-blue-dog-0.png")
def show(file: File, as_json: Json = False) -> None:
    """Print what made a picture or a figure: its settings, scores, weights and machine."""
    values = record.read_values(file)
    if "figure" not in values:
        values = asdict(fd.read_record(file))
    if as_json:
        print(json.dumps(values, indent=1))
        return
    texts = (v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values.values())
    table(zip(values, texts, strict=True))


@app.command(epilog="Example: fusedream-nb replay fusedream-out/a-photo-of-a-blue-dog-0.png --out again")
def replay(
    file: File,
    out: Annotated[Path | None, typer.Option(help="Folder to keep the new picture in.")] = None,
    device: Device = None,
) -> None:
    """Make a picture again: 'equal', or how far off; exit code 0 if equal, 1 if not."""
    old = fd.read_record(file)
    if out is not None:
        png.check_folder(out)
        if out.resolve() == file.resolve().parent:
            raise ValueError(f"The picture itself is in {out}; choose another folder for the new one.")
    with Bar(1) as bar:
        image, new = again.rerun(old, device=device, watch=bar.next([old.prompt]))
    off = again.difference(file, image)
    print(f"different: up to {off} of 255 levels" if off else "equal")
    if out is not None:
        print(fd.save(image, new, out))
    if off:
        for change in again.changes(old, new):
            say(f"{change}.")
        raise typer.Exit(1)


@app.command(
    epilog="Examples:\n\nfusedream-nb reproduce fd-02 fd-03\n\n"
    "fusedream-nb reproduce all --budget gallery --jobs 2 --out figures"
)
def reproduce(
    figures: Annotated[list[str], typer.Argument(metavar="FIGURE", help="Ids, see `figures`; or all.")],
    model: Model = None,
    budget: Size = None,
    device: Device = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of each notebook's own.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of figures and report.")] = Path("fusedream-out/figures"),
    at_once: Annotated[int, typer.Option("--jobs", min=1, max=64, help="How many notebooks at a time.")] = 1,
    as_json: Json = False,
) -> None:
    """Run the notebooks that draw the papers' figures; collect these, their claims and what they cost.

    The folder gets the figures, the notebooks as they ran, index.html, REPORT.md and claims.json.

    Ctrl-C stops; the same command goes on after the notebooks that are done.

    Exit code 1 where a notebook failed or drew no such figure. A claim that differs is no failure.
    """
    from fusedream_nb.reproduce import report, runner
    from fusedream_nb.reproduce.figures import chosen

    wanted, results = chosen(figures), []
    paths = runner.notebooks(wanted, every="all" in map(str.lower, figures))
    settings = runner.settings(model, budget, device, seed)
    png.check_folder(out)
    try:
        with closing(runner.run(paths, settings, out, jobs=at_once, tell=say)) as run:
            for result in run:
                results.append(result)
                report.write(out)
                say(report.line(result))
    except KeyboardInterrupt:
        done = f"{len(results)} of {len(paths)} notebooks have run"
        raise Stopped(f"Stopped; {done}, and the same command goes on from there.") from None
    standing = [(figure.id, *report.standing(figure, results)) for figure in wanted]
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        table(standing)
        print(out / "index.html")
    if any(result.failure for result in results) or any(state == "not drawn" for _, state, _ in standing):
        raise typer.Exit(1)


@app.command(epilog="Example: fusedream-nb figures --json")
def figures(as_json: Json = False) -> None:
    """List the papers' figures: what each shows, its notebook, minutes, and whether it can be made."""
    from fusedream_nb.reproduce.figures import listing

    rows = listing()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        row["minutes"] = "not measured" if row["minutes"] is None else f"{row['minutes']:g} min"
    table([row[name] for name in ("id", "notebook", "status", "minutes", "caption")] for row in rows)


app.command(epilog=evaluate_command.EXAMPLES)(evaluate_command.evaluate)
app.add_typer(models_command.app, name="models")


@app.command(epilog="Example: fusedream-nb doctor")
def doctor(as_json: Json = False) -> None:
    """Check Python, libraries, devices, memory, disk, weights and what the notebooks need."""
    from fusedream_nb.cli.doctor import examine

    checks = [asdict(check) for check in examine()]
    if as_json:
        print(json.dumps(checks, indent=1))
    else:
        table([check[name] for name in ("status", "name", "found", "advice")] for check in checks)
    if any(check["status"] == "fail" for check in checks):
        raise typer.Exit(1)
