"""The command line: ``fusedream-nb generate``, ``show``, ``replay``, ``reproduce`` and others."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fusedream_nb as fd
from fusedream_nb.reproduce import png, record
from fusedream_nb.reproduce.terminal import Bar, say, table

if TYPE_CHECKING:
    from fusedream_nb.method.budgets import Budget
    from fusedream_nb.method.optimise import Step
    from fusedream_nb.models import Models

AT_ONCE = 4  # pictures in one batch: more take more memory and, on a CPU, hardly less time
TOLD = ("prompt", "seed", "score", "judge_score", "seconds", "steps", "steps_done")  # by --json
Row = dict[str, Any]


class Stopped(Exception):
    """Ctrl-C, after what could be kept was kept; says what."""


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
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
File = Annotated[Path, typer.Argument(metavar="FILE.png", help="A picture made by `generate`.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="auto")]
Model = Annotated[str | None, typer.Option(help="See `fusedream-nb models`.", show_default="stickers")]
Size = Annotated[str | None, typer.Option(help="quick, full or paper.", show_default="quick")]


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


@app.command(
    epilog='Examples:\n\nfusedream-nb generate "a photo of a blue dog"\n\n'
    'fusedream-nb generate "purple lion" "a car in the sky" --seeds 4 --out gallery\n\n'
    "fusedream-nb generate --budget full --seed 7 -- '-- any text at all, <script> too'"
)
def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="What a picture shows.")],
    model: Model = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed, or the first.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="How many seeds each prompt gets.")] = 1,
    budget: Size = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Instead of the budget's number.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("fusedream-out"),
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Make a picture of each prompt with each seed, and print where it is.

    Its settings stand in the PNG and in a .json beside it: see `show` and `replay`.

    A picture made with the same settings is replaced; with others, the new one's name gets a number.

    Ctrl-C keeps the best pictures so far.
    """
    if seed + seeds > 2**63:
        raise ValueError("A seed is a whole number from 0 to 2^63 - 1.")
    jobs = list(dict.fromkeys((_legal(prompt), seed + i) for prompt in prompts for i in range(seeds)))
    sizes = fd.budget(budget)
    sizes = sizes if steps is None else replace(sizes, steps=steps)
    png.check_folder(out)
    loaded = fd.load(model, device=device)
    for prompt in dict.fromkeys(prompt for prompt, _ in jobs):
        loaded.clip.encode_text(prompt)  # says now, before the bar, which words it does not know
    batches = [jobs[i : i + AT_ONCE] for i in range(0, len(jobs), AT_ONCE)]
    rows: list[Row] = []
    try:
        with Bar(len(batches)) as bar:
            for batch in batches:
                _draw(batch, loaded, sizes, out, bar, rows)
    except KeyboardInterrupt:
        raise Stopped(_kept(rows)) from None
    finally:
        if rows:
            print(json.dumps(rows, indent=1) if as_json else "\n".join(row["path"] for row in rows))


def _legal(prompt: str) -> str:
    """Return a prompt without halves of characters, which bytes that are not UTF-8 come as."""
    if not prompt.strip():
        raise ValueError("The prompt is empty; say in words what the picture should show.")
    return prompt.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _draw(
    batch: list[tuple[str, int]], models: Models, sizes: Budget, out: Path, bar: Bar, rows: list[Row]
) -> None:
    """Make a batch, save it and add it to the rows; at Ctrl-C this is the best so far."""
    prompts, seeds = [prompt for prompt, _ in batch], [seed for _, seed in batch]
    run = fd.fusedream(prompts, models, seed=seeds, budget=sizes)
    step, stopped = _last(run, bar.next(prompts))
    if step is not None:
        made = record.describe(step, models, sizes, prompts, seeds)
        for image, what in zip(step.best_image, made, strict=True):
            path = fd.save(image, what, out)
            rows.append({"path": str(path), **{name: getattr(what, name) for name in TOLD}})
    if stopped:
        raise KeyboardInterrupt


def _last(run: Iterator[Step], watch: Callable[[Step], object]) -> tuple[Step | None, bool]:
    """Return the last step of a run, if it had one, and whether Ctrl-C ended it."""
    step = None
    try:
        for step in run:
            watch(step)
    except KeyboardInterrupt:
        return step, True
    return step, False


def _kept(rows: list[Row]) -> str:
    """Say what a stopped command leaves."""
    if not rows:
        return "Stopped; nothing was kept."
    last = rows[-1]
    if last["steps_done"] == last["steps"]:
        return f"Stopped; {len(rows)} finished pictures are kept."
    return f"Stopped after step {last['steps_done']} of {last['steps']}; the best so far is kept."


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
        image, new = record.rerun(old, device=device, watch=bar.next([old.prompt]))
    off = record.difference(file, image)
    print(f"different: up to {off} of 255 levels" if off else "equal")
    if out is not None:
        print(fd.save(image, new, out))
    if off:
        for change in record.changes(old, new):
            say(f"{change}.")
        raise typer.Exit(1)


@app.command(
    epilog="Examples:\n\nfusedream-nb reproduce fd-02 fd-03\n\n"
    "fusedream-nb reproduce all --budget full --jobs 2 --out figures"
)
def reproduce(
    figures: Annotated[list[str], typer.Argument(metavar="FIGURE", help="Ids, see `figures`; or all.")],
    model: Model = None,
    budget: Size = None,
    device: Device = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of each notebook's own.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of figures and report.")] = Path("fusedream-out/figures"),
    jobs: Annotated[int, typer.Option(min=1, max=64, help="How many notebooks at a time.")] = 1,
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
        with closing(runner.run(paths, settings, out, jobs=jobs, tell=say)) as run:
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


@app.command(epilog="Example: fusedream-nb models --json")
def models(as_json: Json = False) -> None:
    """List what can be loaded: its size, whether it is here, its part and its licence."""
    from fusedream_nb.models.weights import catalogue

    names = ("name", "bytes", "here", "role", "licence", "folder")
    rows = [{name: getattr(entry, name) for name in names} for entry in catalogue()]
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        row["bytes"] = f"{row['bytes'] / 1e6:,.0f} MB" if row["bytes"] else "?"
        row["here"] = "here" if row["here"] else "not here"
    table([[row[name] for name in names[:-1]] for row in rows])


@app.command(epilog="Example: fusedream-nb doctor")
def doctor(as_json: Json = False) -> None:
    """Check Python, libraries, devices, memory, disk, weights and what the notebooks need."""
    from fusedream_nb.reproduce.doctor import examine

    checks = [asdict(check) for check in examine()]
    if as_json:
        print(json.dumps(checks, indent=1))
    else:
        table([check[name] for name in ("status", "name", "found", "advice")] for check in checks)
    if any(check["status"] == "fail" for check in checks):
        raise typer.Exit(1)
