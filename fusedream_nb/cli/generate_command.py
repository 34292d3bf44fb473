"""``fusedream-nb generate``: pictures from words, by any of the methods."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

import fusedream_nb as fd
from fusedream_nb.cli.terminal import Bar, Device, Json, Model, Size, Stopped, say
from fusedream_nb.method.budgets import default
from fusedream_nb.records import jobs, png

if TYPE_CHECKING:
    from fusedream_nb.method.run import Run

EXAMPLES = (
    'Examples:\n\nfusedream-nb generate "a photo of a blue dog"\n\n'
    'fusedream-nb generate "purple lion" "a car in the sky" --seeds 4 --out gallery\n\n'
    'fusedream-nb generate "an elephant on top of a house" --compose --placements 9@0.5 --film\n\n'
    'fusedream-nb generate "a castle" "a mushroom:2" --transport --canvas 128x96\n\n'
    "fusedream-nb generate --resume gallery\n\n"
    "fusedream-nb generate --budget gallery --seed 7 -- '-- any text at all, <script> too'"
)
RESUMED = {"prompts", "resume", "steps", "every", "device", "as_json"}  # what --resume goes with
COMPOSED, TRANSPORTED = ("placements", "foreground", "background"), ("prompt_picture", "mean", "canvas")
CLASSES = "Of the start: classes (any), nearest (to PROMPT) or normal (none)."
START = "Begin at a picture: at a VQGAN's codes of it, or at the samples that CLIP finds nearest."
PLACES = (
    "Where the foreground may stand: all (18), 9@0.5 (nine places, half as wide as the picture), "
    "left-bottom@0.4, or some of these with commas."
)
ALL = "All PROMPTs in one picture; 'a dog:2' counts twice."


_composing: Any = partial(Option, rich_help_panel="Composition (FuseDream)")
_transporting: Any = partial(Option, rich_help_panel="Several prompts by optimal transport")
Ranked = Annotated[str | None, _composing(help="What its start is ranked by.", show_default="PROMPT")]


def generate(
    context: typer.Context,
    prompts: Annotated[list[str] | None, Argument(metavar="PROMPT", help="What a picture shows.")] = None,
    model: Model = None,
    seed: Annotated[int, Option(min=0, max=2**63 - 1, help="The seed, or the first.")] = 0,
    seeds: Annotated[int, Option(min=1, max=10_000, help="How many seeds each prompt gets.")] = 1,
    budget: Size = None,
    steps: Annotated[int | None, Option(min=0, help="Instead of the budget's number.")] = None,
    out: Annotated[Path | None, Option(help="Folder of the pictures.", show_default="fusedream-out")] = None,
    device: Device = None,
    film: Annotated[bool, Option("--film", help="A GIF of the run beside each picture.")] = False,
    resume: Annotated[Path | None, Option(help="The --out of a stopped run: finish it.")] = None,
    y: Annotated[str | None, Option("--classes", help=CLASSES)] = None,
    start: Annotated[Path | None, Option(metavar="PICTURE", help=START)] = None,
    every: Annotated[float, Option(min=0, help="Seconds between two saved states.")] = jobs.EVERY,
    as_json: Json = False,
    compose: Annotated[bool, _composing("--compose", help="A foreground on a background.")] = False,
    placements: Annotated[str | None, _composing(help=PLACES, show_default="all")] = None,
    foreground: Ranked = None,
    background: Ranked = None,
    transport: Annotated[bool, _transporting("--transport", help=ALL)] = False,
    prompt_picture: Annotated[
        list[Path] | None, _transporting(help="A picture as one more PROMPT.", metavar="PICTURE")
    ] = None,
    mean: Annotated[bool, _transporting("--mean", help="By the mean loss, to compare.")] = False,
    canvas: Annotated[
        str | None, _transporting(help="Pixels of a VQGAN's picture.", metavar="WIDTHxHEIGHT")
    ] = None,
) -> None:
    """Make a picture of each prompt with each seed, and print where it is.

    Its settings stand in the PNG and in a .json beside it: see `show` and `replay`.

    A picture made with the same settings is replaced; with others, the new one's name gets a number.

    Ctrl-C keeps the best pictures so far. What was stopped, or killed, is finished by --resume; with a
    PROMPT it goes on from there with other words, with --steps to another number of steps.
    """
    given = {
        each.name or "": each.opts[0]
        for each in context.command.params
        if (source := context.get_parameter_source(each.name or "")) and source.name == "COMMANDLINE"
    }
    knobs: dict[str, Any] = {}
    if resume is None:
        from fusedream_nb.method.bank import widened
        from fusedream_nb.method.config import packed
        from fusedream_nb.models.pictures import PictureFile

        if not prompts and not prompt_picture:
            raise ValueError("There is no PROMPT; say in words what the picture should show.")
        kind, options = _kind(given, context.params)
        words, pictures = [_legal(prompt) for prompt in prompts or []], prompt_picture or []
        if transport:
            words, options["weights"] = _weighted(words, len(pictures))
        options |= {"y": y} if y else {}
        options |= {"start": packed(PictureFile(str(start)))} if start else {}
        sizes = kind.sizes(fd.budget(budget or default(model, device)))
        sizes = sizes if steps is None else replace(sizes, steps=steps)
        texts = [*words, *(PictureFile(str(path)) for path in pictures)]
        more = {"method": kind.method, "options": options, "canvas": _canvas(canvas), "film": film}
        todo = [jobs.job(texts, range(seed, seed + seeds), model, device, sizes, **more)]
    elif surplus := [option for name, option in given.items() if name not in RESUMED]:
        what = "--resume goes on with what was asked for then, and takes a PROMPT and --steps only"
        raise ValueError(f"{what}; leave out {', '.join(surplus)}.")
    elif len(prompts or []) > 1:
        raise ValueError("--resume goes on with what was asked for then, or with one other PROMPT.")
    else:
        out, todo = resume, jobs.unfinished(resume)
        knobs |= {"prompt": [_legal(prompt) for prompt in prompts]} if prompts else {}
        knobs |= {} if steps is None else {"steps": steps}
    out = out or Path("fusedream-out")
    png.check_folder(out)
    worlds = []
    for job in todo:
        sides = (job.canvas[0], job.canvas[1]) if job.canvas else None
        worlds.append(fd.load(job.model, device=device or job.device, canvas=sides))
    if resume is None and not options:
        # A seed's picture is the same alone and among others, so those without a bank are a job of their own.
        wide = {each: widened(sizes, worlds[0], [each]) for each in range(seed, seed + seeds)}
        alike = {size: [each for each in wide if wide[each] == size] for size in wide.values()}
        todo = [jobs.job(texts, own, model, device, size, **more) for size, own in alike.items()]
        worlds *= len(todo)
    for job, models in zip(todo, worlds, strict=True):
        said = [prompt for texts, _ in job.groups for prompt in texts] + knobs.get("prompt", [])
        for prompt in dict.fromkeys(text for text in said if isinstance(text, str)):
            models.clip.encode_text(prompt)  # says now, before the bar, what it does not know
        jobs.begin(job, models)  # says now what is out of range
    rows: list[jobs.Row] = []
    try:
        with Bar(sum(len(job.groups) - job.done for job in todo)) as bar:
            for job, models in zip(todo, worlds, strict=True):
                jobs.draw(job, models, out, rows, watch=bar.next, every=every, knobs=knobs)
    except KeyboardInterrupt:
        raise Stopped(_kept(rows, out)) from None
    finally:
        if rows:
            lines = [path for row in rows for path in (row["path"], *row["film"])]
            print(json.dumps(rows, indent=1) if as_json else "\n".join(lines))


def _kind(asked: dict[str, str], values: dict[str, Any]) -> tuple[type[Run[Any]], dict[str, Any]]:
    """Return the kind of run with its own options, as JSON holds them; ValueError for those of another."""
    compose, transport, places = (values[name] for name in ("compose", "transport", "placements"))
    if compose and transport:
        raise ValueError("A picture is made by --compose or by --transport; choose one.")
    for kind, chosen, own in (("--compose", compose, COMPOSED), ("--transport", transport, TRANSPORTED)):
        for option in (asked[name] for name in own if name in asked and not chosen):
            raise ValueError(f"{option} is an option of {kind}; add it.")
    if "y" in asked and (compose or transport):
        raise ValueError("--classes is for single pictures; leave out --compose and --transport.")
    if "start" in asked and compose:
        raise ValueError("--start is one picture, and a composition begins at two; leave out --compose.")
    from fusedream_nb.method.compose import CompositionRun
    from fusedream_nb.method.config import packed
    from fusedream_nb.method.fusedream import FusedreamRun
    from fusedream_nb.method.placement import PLACEMENTS, Placements, named
    from fusedream_nb.method.transport import TransportRun

    if compose:
        placements = packed(Placements.of(PLACEMENTS if places is None else named(places)))
        ranked = {name: values[name] for name in ("foreground", "background")}
        return CompositionRun, {"placements": placements, **ranked}
    if transport:
        return TransportRun, {"loss": "mean" if values["mean"] else "transport"}
    return FusedreamRun, {}


def _canvas(text: str | None) -> list[int] | None:
    """Return "128x96", width and height, as [height, width]."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", text.strip())
    if not found:
        raise ValueError(f"A canvas is WIDTHxHEIGHT in pixels, such as 128x96, not {text!r}.")
    return [int(found[2]), int(found[1])]


WEIGHT = re.compile(r"(?s)(.*[^\s\d:\\]):([-+]?(?:\d{1,2}(?:\.\d*)?|\.\d+))")


def _weighted(prompts: Sequence[str], pictures: int = 0) -> tuple[list[str], list[float] | None]:
    """Return prompts and the weights behind their last colons, as in "a dog:2"; None where there are none.

    After them come the weights, 1 each, of so many pictures.

    A colon behind a digit or a space, as in "at 12:30", belongs to the words, and so do an escaped one and
    one before 100 or more.
    """
    found = [WEIGHT.fullmatch(prompt) for prompt in prompts]
    texts = [one[1] if one else prompt for one, prompt in zip(found, prompts, strict=True)]
    weights = [float(one[2]) if one else 1.0 for one in found]
    texts = [text.replace("\\:", ":") for text in texts]
    if not any(found):
        return texts, None
    say("Weights: " + ", ".join(f"{text} {weight:g}" for text, weight in zip(texts, weights, strict=True)))
    return texts, weights + [1.0] * pictures


def _legal(prompt: str) -> str:
    """Return a prompt without halves of characters, which bytes that are not UTF-8 come as."""
    if not prompt.strip():
        raise ValueError("The prompt is empty; say in words what the picture should show.")
    return prompt.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _kept(rows: list[jobs.Row], out: Path) -> str:
    """Say what a stopped command leaves."""
    if not rows:
        left = any(out.glob(f"{jobs.UNFINISHED}*"))
        return "Stopped; " + (f"--resume {out} goes on from there." if left else "nothing was kept.")
    last = rows[-1]
    if last["steps_done"] == last["steps"]:
        return f"Stopped; {len(rows)} finished pictures are kept, and --resume {out} makes the others."
    done = f"Stopped after step {last['steps_done']} of {last['steps']}"
    return f"{done}; the best so far is kept, and --resume {out} finishes it."
