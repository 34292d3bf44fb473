"""``fusedream-nb models``: what can be loaded, and commands for its files."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from fusedream_nb.cli.terminal import Bar, Device, Json, Size, table
from fusedream_nb.models.weights import Entry, catalogue, entry

COLUMNS = ("name", "bytes", "here", "role", "licence", "folder")
Cache = Annotated[Path | None, Option("--cache", help="Folder of weights.", show_default="FUSEDREAM_CACHE")]
Names = Annotated[list[str], Argument(metavar="NAME", help="See `fusedream-nb models`.")]
app = typer.Typer(
    invoke_without_command=True,
    epilog="Examples:\n\nfusedream-nb models --json\n\nfusedream-nb models fetch biggan-deep-256",
)


@app.callback()
def models(context: typer.Context, cache: Cache = None, as_json: Json = False) -> None:
    """List what can be loaded: its size, whether it is here, its part and its licence."""
    context.obj = cache
    if context.invoked_subcommand is not None:
        if as_json:
            raise ValueError(f"--json is for the list of models, not for {context.invoked_subcommand}.")
        return
    rows = [{name: getattr(row, name) for name in COLUMNS} for row in catalogue(cache)]
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        row["bytes"] = f"{row['bytes'] / 1e6:,.0f} MB" if row["bytes"] else "?"
        row["here"] = "here" if row["here"] else "not here"
    table([[row[name] for name in COLUMNS[:-1]] for row in rows])


@app.command(epilog="Example: fusedream-nb models fetch biggan-deep-256 ViT-B-32-quickgelu/openai")
def fetch(context: typer.Context, names: Names, cache: Cache = None) -> None:
    """Download models, each file checked before it gets its name; replace files that are wrong.

    FUSEDREAM_MIRROR names a server to ask first, and FUSEDREAM_OFFLINE=1 or HF_HUB_OFFLINE=1 asks none.
    """
    from fusedream_nb.models import fetch as downloads

    for row in _rows(names, cache or context.obj):
        print(downloads.fetch(row, again=True))


@app.command(epilog="Example: fusedream-nb models verify biggan-256 --look")
def verify(
    context: typer.Context,
    names: Annotated[list[str] | None, Argument(metavar="[NAME]...", help="Or all that are here.")] = None,
    cache: Cache = None,
    look: Annotated[bool, Option("--look", help="Also draw, and measure what comes.")] = False,
) -> None:
    """Check the hashes of models, by name or all that are here; exit code 1 where one is wrong.

    Of each file it says right, wrong or not checked, by what, and how what was not checked can be. With
    --look it loads each model and measures what only the right weights give; pictures are left here.
    """
    store = cache or context.obj
    rows = _rows(names, store) if names else [row for row in catalogue(store) if row.here]
    lines = [(row.name, *row.verify(file)) for row in rows for file in row.files]
    table([verdict, name, why] for name, verdict, why in lines)
    wrong = any(verdict == "wrong" for _, verdict, _ in lines)
    for name in (row.name for row in rows if look):
        wrong |= not _look(name)
    if wrong:
        raise typer.Exit(1)


def _look(name: str) -> bool:
    """Say what is found of a model, and leave a contact sheet in the current folder; False where it fails."""
    from torchvision.utils import save_image

    from fusedream_nb.models.look import look

    passed = True
    for found in look(name):
        passed &= found.passed
        print(f"{'right' if found.passed else 'wrong'}  {found.name}  {found.found}")
        if found.pictures is not None:
            sheet = f"look-{found.name.replace('/', '-')}.png"
            save_image(found.pictures, sheet, nrow=10, normalize=True, value_range=(-1, 1))
            print(f"       its pictures: {sheet}")
    return passed


@app.command(epilog="Example: fusedream-nb models bank biggan-256 --seed 1")
def bank(
    context: typer.Context,
    names: Names,
    cache: Cache = None,
    seed: Annotated[int, Option("--seed", min=0, help="The seed of the runs.")] = 0,
    samples: Annotated[int, Option("--M", min=1, help="Samples that a start is chosen from.")] = 10_000,
    budget: Size = None,
    device: Device = None,
    folder: Annotated[Path | None, Option("--folder", help="Instead of the cache.")] = None,
) -> None:
    """Read a seed's samples once, so that from then on every prompt's start is a lookup.

    What is there already is not read again. `fusedream-nb doctor` says which there are.
    """
    import fusedream_nb as fd
    from fusedream_nb.method.bank import build

    store = cache or context.obj
    place = folder or (store / "banks" if store else None)
    for name, models in [(name, fd.load(name, device=device)) for name in names]:
        copies = fd.budget(budget, models).start_copies
        with Bar() as bar:
            tell = partial(bar.show, label=f"the samples of {name}")
            paths = build(models, seed=seed, M=samples, copies=copies, folder=place, progress=tell)
        print(*paths, sep="\n")


@app.command(epilog="Example: fusedream-nb models rm vqgan-wikiart")
def rm(context: typer.Context, names: Names, cache: Cache = None) -> None:
    """Delete the files of models, with what was made of them; other files in their folders stay."""
    rows = _rows(names, cache or context.obj)
    if any(row.name == "stickers" for row in rows):
        raise ValueError("The stickers are a part of the package; they are not deleted.")
    for row in rows:
        found = row.folder.is_dir()
        for file in row.files:
            for end in ("", ".part", ".lock", ".sha256"):
                (row.folder / f"{file.name}{end}").unlink(missing_ok=True)
        for path in row.folder.glob("converted*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if row.folder.is_dir() and not any(row.folder.iterdir()):
            row.folder.rmdir()
        print(f"{row.name} {'is no longer' if found else 'was not'} in {row.folder}")


def _rows(names: list[str], store: Path | None) -> list[Entry]:
    return [entry(name, store) for name in dict.fromkeys(names)]
