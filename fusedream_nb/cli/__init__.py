"""The command line: ``fusedream-nb generate``, ``show``, ``replay``, ``reproduce`` and others."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

import fusedream_nb as fd
from fusedream_nb.cli import doctor, evaluate_command, generate_command, models_command, reproduce_command
from fusedream_nb.cli.terminal import Bar, Device, Json, Stopped, say, table
from fusedream_nb.records import png, record
from fusedream_nb.records import replay as again


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 (differs, fails), 2 (bad input) or 130 (Ctrl-C).

    What goes wrong is reported in one sentence on stderr; FUSEDREAM_DEBUG=1 gives the traceback instead.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say(str(message))
            code = app(arguments, prog_name="fusedream-nb", standalone_mode=False) or 0
        if code == 130:  # what newer typers make of Ctrl-C
            raise KeyboardInterrupt
        return code
    except (KeyboardInterrupt, typer.Abort, Stopped) as stop:
        say(str(stop) or "Stopped.")
        return 130
    except Exception as error:
        if os.environ.get("FUSEDREAM_DEBUG") == "1":
            raise
        return _explain(error)


def _explain(error: Exception) -> int:
    """Report an error in one sentence; return the exit code."""
    sentence, code = str(error), 2
    if hasattr(error, "format_message"):  # typer's own: an unknown option, a number out of range
        sentence = error.format_message()
        command = getattr(getattr(error, "ctx", None), "info_name", "")
        if "No such option" in sentence and command == "generate":
            sentence = f"{sentence.rstrip('.')}. A PROMPT that begins with a dash stands behind --."
    elif "OutOfMemory" in type(error).__name__ or "allocate memory" in sentence:
        sentence = (
            "There is not enough memory: take --budget quick, one seed, a smaller --canvas, or --device cpu."
        )
    elif isinstance(error, OSError) and error.filename is not None:
        sentence = f"{error.filename}: {(error.strerror or 'cannot be used').lower()}."
    elif not isinstance(error, (ValueError, OSError, ArithmeticError)):
        sentence, code = f"{type(error).__name__}: {error} (a fault; FUSEDREAM_DEBUG=1 shows where).", 1
    say(sentence)
    return code


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
File = Annotated[Path, Argument(metavar="FILE.png", help="A picture made by `generate`.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fusedream-nb {fd.__version__}")
        raise typer.Exit


@app.callback(epilog='Example: fusedream-nb generate "a photo of a blue dog"')
def _common(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
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
    out: Annotated[Path | None, Option(help="Folder to keep the new picture in.")] = None,
    device: Device = None,
) -> None:
    """Make a picture again: 'equal', or how far off; exit code 0 if equal, 1 if not."""
    old = fd.read_record(file)
    if out is not None:
        png.check_folder(out)
        if out.resolve() == file.resolve().parent:
            raise ValueError(f"The picture itself is in {out}; choose another folder for the new one.")
    with Bar(1) as bar:
        image, new = again.rerun(file, device=device, watch=bar.next)
    off = again.difference(file, image)
    print(f"different: up to {off} of 255 levels" if off else "equal")
    if out is not None:
        print(fd.save(image, new, out))
    if off:
        for change in again.changes(old, new):
            say(f"{change}.")
        raise typer.Exit(1)


app.command(epilog=reproduce_command.EXAMPLES)(reproduce_command.reproduce)
app.command(epilog="Example: fusedream-nb figures --json")(reproduce_command.figures)
app.command(epilog=evaluate_command.EXAMPLES)(evaluate_command.evaluate)
app.add_typer(models_command.app, name="models")

app.command(epilog="Example: fusedream-nb doctor")(doctor.doctor)
