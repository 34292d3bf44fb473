"""What made a picture: kept inside its PNG and beside it, read back, and run again."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusedream_nb import __version__

from . import png

if TYPE_CHECKING:
    from torch import Tensor

    from fusedream_nb.method.budgets import Budget
    from fusedream_nb.method.optimise import Step
    from fusedream_nb.models import Models

FORMAT = 1  # goes up whenever the fields change
WORDS = 60  # characters of the prompt that a file's name keeps


@dataclass(frozen=True)
class Record:
    """Everything that made one picture; scores are cosines, higher is better.

    ``steps_done`` is less than ``steps`` where the run was stopped. ``batch_prompts`` and
    ``batch_seeds`` are the pictures made together with this one, ``place`` is its own among them;
    ``seconds`` are those of all. ``options`` are other arguments of ``fusedream``, ``knobs`` what was
    changed by hand during the run, ``weights`` the files' SHA-256.
    """

    prompt: str
    seed: int
    model: str
    budget: str
    M: int
    k: int
    steps: int
    copies: int
    lr: float
    start_copies: int
    judged_copies: int
    device: str
    dtype: str
    score: float
    judge_score: float | None = None
    steps_done: int = 0
    seconds: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    knobs: list[dict[str, Any]] = field(default_factory=list)
    batch_prompts: list[str] = field(default_factory=list)
    batch_seeds: list[int] = field(default_factory=list)
    place: int = 0
    weights: dict[str, str] = field(default_factory=dict)
    package: str = ""
    torch: str = ""
    python: str = ""
    cpu: str = ""
    threads: int = 0
    created: str = ""
    format: int = FORMAT


SETTINGS = ("M", "k", "steps", "copies", "lr", "start_copies", "judged_copies", "options", "device", "dtype")
SAME_PICTURE = ("prompt", "seed", "model", "weights", "knobs", *SETTINGS)
SURROUNDINGS = ("package", "torch", "cpu", "threads", *SETTINGS)


def describe(
    step: Step,
    models: Models,
    budget: Budget,
    prompts: Sequence[str],
    seeds: Sequence[int],
    options: dict[str, Any] | None = None,
) -> list[Record]:
    """Return the record of each picture of a batch (n prompts, n seeds) as it stands after a step."""
    shared = {
        **_surroundings(models),
        **{name: value for name, value in asdict(budget).items() if name != "name"},
        "budget": budget.name,
        "steps_done": step.index,
        "seconds": round(step.seconds, 3),
        "options": options or {},
        "batch_prompts": list(prompts),
        "batch_seeds": list(seeds),
    }
    rows = zip(prompts, seeds, step.best_score.tolist(), _judge(step, models, prompts), strict=True)
    return [
        Record(prompt=prompt, seed=seed, score=score, judge_score=judged, place=place, **shared)
        for place, (prompt, seed, score, judged) in enumerate(rows)
    ]


def _surroundings(models: Models) -> dict[str, Any]:
    import torch

    return {
        "model": models.name,
        "device": models.device.type,
        "dtype": str(models.dtype).removeprefix("torch."),
        "weights": _hashes(models),
        "package": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _hashes(models: Models) -> dict[str, str]:
    return hashes(models.name, models.clip.name)


def hashes(model: str, *others: str) -> dict[str, str]:
    """Return the SHA-256 of the files, as they are on the disk, of a model and of others by name.

    Names that are not in the catalogue are passed over; the model may be a folder.
    """
    from fusedream_nb.models.weights import catalogue, sha256

    rows = [row for row in catalogue() if row.name in (model, *others)]
    files = {f"{row.name}/{file.name}": row.folder / file.name for row in rows for file in row.files}
    if model not in [row.name for row in rows]:
        files |= {path.name: path for path in sorted(Path(model).glob("*.*"))}
    return {name: sha256(path) for name, path in files.items()}


def _judge(step: Step, models: Models, prompts: Sequence[str]) -> list[float]:
    """Return what the judge, which was never climbed, thinks of the best pictures [n]."""
    from fusedream_nb.method.scores import CLIPScore

    with warnings.catch_warnings(action="ignore"):  # the climbed encoder has named the unknown words
        return CLIPScore(models.judge, prompts)(step.best_image).detach().tolist()


def slug(prompt: str, seed: int) -> str:
    """Return a file's name, without suffix, that is safe anywhere and that no two (prompt, seed) share.

    It is the prompt's words in lower-case ASCII, at most 60 characters. Where these do not give the
    prompt back, ten digits of its SHA-1 follow.
    """
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = "-".join(re.findall(r"[a-z0-9]+", plain))
    if len(words) > WORDS:
        words = words[: WORDS + 1].rpartition("-")[0] or words[:WORDS]
    if not words or words.replace("-", " ") != prompt or re.search(r"\b[0-9a-f]{10}$", words):
        digest = hashlib.sha1(prompt.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
        words = f"{words or 'picture'}-{digest[:10]}"
    return f"{words}-{seed}"


def save(image: Tensor, record: Record, folder: str | Path) -> Path:
    """Write a picture [3, h, w] in [-1, 1] as ``<slug>.png`` with its record, and ``<slug>.json``.

    It replaces the same settings' picture of as many steps or fewer; any other file of that name
    stays, and the new one is called ``<slug>_2``, ``_3``, …
    Raises ValueError for another shape, and OSError, leaving nothing behind, where the folder cannot
    be written to or the disk is full.
    """
    text, folder = _to_json(record), Path(folder)
    picture = png.encode(image, text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _free_path(folder, record)
        png.write({path.with_suffix(".json"): text.encode() + b"\n", path: picture})
    except OSError as error:
        raise png.cannot_write(folder, error) from error
    return path


def _free_path(folder: Path, record: Record) -> Path:
    """Return the first path where no file is that must stay."""
    name = slug(record.prompt, record.seed)
    numbers = itertools.chain([""], (f"_{n}" for n in itertools.count(2)))
    paths = (folder / f"{name}{number}.png" for number in numbers)
    return next(path for path in paths if not os.path.lexists(path) or _supersedes(record, path))


def _supersedes(record: Record, path: Path) -> bool:
    with suppress(ValueError, OSError):
        old = read_record(path)
        same = all(getattr(old, name) == getattr(record, name) for name in SAME_PICTURE)
        return same and record.steps_done >= old.steps_done
    return False


def _to_json(record: Record) -> str:
    """Return a record as JSON that is valid UTF-8 even where the prompt is not."""
    text = json.dumps(asdict(record), ensure_ascii=False, indent=1)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def read_record(path: str | Path) -> Record:
    """Return the record in a picture's PNG.

    Raises OSError where the file cannot be read, and ValueError where it is not a whole PNG, is a
    notebook's figure, holds no record, or one that this version does not understand.
    """
    values = read_values(path)
    if "figure" in values:
        again = f"fusedream-nb reproduce {values['figure']}"
        raise ValueError(f"{path} is a figure of many pictures; to draw it again: {again}")
    try:
        return Record(**values)
    except TypeError as error:
        raise _unreadable(path, error) from error


def read_values(path: str | Path) -> dict[str, Any]:
    """Return what stands in the record of a PNG, a picture's or a figure's; raises as read_record."""
    _, text = png.decode(path)
    if text is None:
        raise ValueError(f"{path} holds no record: fusedream-nb did not write it, or it was edited since.")
    try:
        values = json.loads(text)
        if values["format"] > FORMAT:
            raise ValueError(f"its format {values['format']} is newer than this program; upgrade it")
        return dict(values)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> ValueError:
    return ValueError(f"The record in {path} cannot be read ({error}).")


def replay(path: str | Path, *, device: str | None = None) -> tuple[Tensor, int]:
    """Make a PNG's picture again; return it [3, h, w] and the largest difference in levels, 0 to 255.

    Warns where the weights or the device are not the recorded ones. Raises what :func:`read_record`,
    ``load`` and ``fusedream`` raise.
    """
    image, _ = rerun(read_record(path), device=device)
    return image, difference(path, image)


def difference(path: str | Path, image: Tensor) -> int:
    """Return the largest difference in levels, 0 to 255, of a picture [3, h, w] from a PNG's pixels."""
    old, new = png.decode(path)[0].astype(int), png.levels(image).astype(int)
    return int(abs(old - new).max()) if old.shape == new.shape else 255


def changes(old: Record, new: Record) -> list[str]:
    """Return, a phrase each, how two records' settings and surroundings differ."""
    pairs = [(name, getattr(old, name), getattr(new, name)) for name in SURROUNDINGS]
    return [f"{name} was {then} and is {now}" for name, then, now in pairs if then != now]


def rerun(
    record: Record, *, device: str | None = None, watch: Callable[[Step], object] = lambda step: None
) -> tuple[Tensor, Record]:
    """Run a record's whole batch again; return its picture [3, h, w] and what made it this time.

    The device is the recorded one, if there is such a one here. ``watch`` is shown every step.
    """
    import torch

    from fusedream_nb.method.budgets import Budget
    from fusedream_nb.method.fuse import fusedream

    models = _load_again(record, device)
    prompts, seeds = record.batch_prompts or [record.prompt], record.batch_seeds or [record.seed]
    sizes = Budget(
        record.budget, **{f.name: getattr(record, f.name) for f in fields(Budget) if f.name != "name"}
    )
    run = fusedream(prompts, models, seed=seeds, budget=sizes, **record.options)
    threads = torch.get_num_threads()
    torch.set_num_threads(min(record.threads or threads, os.cpu_count() or 1))  # sums depend on it
    try:
        for step in run:
            watch(step)
            if step.index >= record.steps_done:
                break
        new = describe(step, models, sizes, prompts, seeds, record.options)
    finally:
        torch.set_num_threads(threads)
    return step.best_image[record.place], new[record.place]


def _load_again(record: Record, device: str | None) -> Models:
    from fusedream_nb.models import load, resolve_device

    with suppress(ValueError):  # the recorded device, unless this machine has none such
        device = device or resolve_device(record.device).type
    models = load(record.model, device=device or "auto")
    here = models.device.type
    if here != record.device:
        warnings.warn(f"The picture was made on {record.device}, and {here} rounds otherwise.", stacklevel=3)
    if record.weights and _hashes(models) != record.weights:
        warnings.warn(f"The weights of {record.model} are not those that made the picture.", stacklevel=3)
    return models
