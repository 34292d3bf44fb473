"""What made a picture: kept inside its PNG and beside it, and read back."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from fusedream_nb import __version__
from fusedream_nb.records import png

if TYPE_CHECKING:
    from torch import Tensor

    from fusedream_nb.method.run import Run
    from fusedream_nb.models import Models

FORMAT = 4  # goes up whenever the fields change
SUFFIXES = (".png", ".json", ".gif", ".mp4")  # that a picture's files can have
WORDS = 60  # characters of the prompt that a file's name keeps


@dataclass(frozen=True)
class Record:
    """Everything that made one picture; scores are cosines, higher is better.

    ``steps_done`` is less than ``steps`` where the run was stopped. ``batch_prompts`` and
    ``batch_seeds`` are what the pictures made together with this one were asked for, ``place`` is its own
    among them; ``seconds`` are those of all. ``texts`` are those that the picture shows; a prompt that is a
    picture stands there with its path and SHA-256. ``options`` are the
    ``method``'s other arguments, ``knobs`` what was set during the run and after which step, ``weights`` the
    files' SHA-256, ``clip`` the climbed encoder. ``canvas`` is a VQGAN's (height, width) in pixels.
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
    batch_prompts: list[Any] = field(default_factory=list)
    batch_seeds: list[int] = field(default_factory=list)
    place: int = 0
    texts: list[Any] = field(default_factory=list)
    clip: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    canvas: list[int] | None = None
    method: str = ""
    package: str = ""
    torch: str = ""
    python: str = ""
    cpu: str = ""
    threads: int = 0
    created: str = ""
    format: int = FORMAT


NUMBERS = ("M", "k", "steps", "copies", "lr", "start_copies", "judged_copies")
SETTINGS = ("method", *NUMBERS, "options", "canvas", "device", "dtype")
SAME_PICTURE = ("prompt", "texts", "seed", "model", "clip", "weights", "knobs", *SETTINGS)
SURROUNDINGS = ("package", "torch", "cpu", "threads", *SETTINGS)


def describe(run: Run[Any]) -> list[tuple[Tensor, Record]]:
    """Return a run's pictures [3, h, w] as they stand after its last step, each with its record.

    A composition has one, that of its best placement, blended; the others have one a seed.
    Raises ValueError before the first step, and for arguments or prompts that no text can hold.
    """
    from fusedream_nb.method.config import packed

    step, config = run.step, run.config
    if step is None:
        raise ValueError("A run that has not begun has no picture; take a step first.")
    try:
        asked = {"options": packed(config.options), "batch_prompts": packed(config.prompts)}
    except TypeError as error:
        raise ValueError(
            f"The picture cannot be kept with what made it: {error}; give a picture as the Path of its file."
        ) from error
    shared = asked | {
        **provenance(run.models),
        **{name: value for name, value in asdict(config.budget).items() if name != "name"},
        "method": config.method,
        "budget": config.budget.name,
        "steps_done": step.index,
        "seconds": round(step.seconds, 3),
        "knobs": run.log,
        "batch_seeds": config.seeds,
    }
    images, scores, texts = step.pictures(), step.fixed_score(), run.words()
    judged = _judge(images, run.models, texts)
    rows = zip(images, texts, config.seeds, scores.tolist(), judged, strict=True)
    found = []
    for place, (image, words, seed, score, judge) in enumerate(rows):
        own = {"score": score, "judge_score": judge, "place": place, "texts": packed(words)}
        found.append((image, Record(", ".join(map(str, words)), seed, **own, **shared)))
    return found


def provenance(models: Models) -> dict[str, Any]:
    """Return what a picture is made with: models and their files' hashes, device, versions, threads, date."""
    import torch

    return {
        "model": models.name,
        "device": models.device.type,
        "dtype": str(models.dtype).removeprefix("torch."),
        "canvas": [int(side) for side in getattr(models.generator, "canvas", ())] or None,
        "clip": models.clip.name,
        "weights": hashes(models.name, models.clip.name),
        "package": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def hashes(model: str, *others: str) -> dict[str, str]:
    """Return the SHA-256 of the files, as they are on the disk, of a model and of others by name.

    Each is a name that can be loaded, a folder or a file; what is none of these is passed over.
    """
    from fusedream_nb.models.weights import entry, sha256

    found: dict[str, Path] = {}
    for name in (*others, model):
        head, path = name.partition("/")[0], Path(name)
        if head != "stickers" and path.exists():  # as load() looks for it
            front = "" if name == model else f"{path.name}/"
            files = sorted(path.glob("*.*")) if path.is_dir() else [path]
            found |= {front + each.name: each for each in files}
        else:
            with suppress(ValueError):
                row = entry(head if head == "stickers" else name)
                found |= {f"{row.name}/{file.name}": row.folder / file.name for file in row.files}
    return {name: sha256(path) for name, path in found.items()}


def _judge(images: Tensor, models: Models, texts: Sequence[Sequence[Any]]) -> list[float]:
    """Return what the judge, which was never climbed, thinks of pictures [n], a mean over each's prompts."""
    import torch

    from fusedream_nb.method.scores import encode_prompts

    with warnings.catch_warnings(action="ignore"):  # the climbed encoder has named the unknown words
        vectors = models.judge.encode_image(images).detach()
        prompts = [encode_prompts(models.judge, column) for column in zip(*texts, strict=True)]
    return torch.stack([(vectors * column).sum(-1) for column in prompts]).mean(0).tolist()


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


def save(
    image: Tensor, record: Record, folder: str | Path, *, companions: Mapping[str, bytes] | None = None
) -> Path:
    """Write a picture [3, h, w] in [-1, 1] as ``<slug>.png`` with its record, and ``<slug>.json``.

    It replaces the same request's picture of as many steps or fewer. Where any other file has one of these
    names, it stays, and the new ones are called ``<slug>_2``, ``_3``, …: nobody else's file is touched, and
    of several processes each takes a name of its own.

    Args:
        image: the picture.
        record: what made it.
        folder: where it is saved; made if it is not there.
        companions: further files beside it by their suffix, such as {".gif": …}.

    Raises ValueError for another shape, and OSError, leaving nothing behind, where the folder cannot be
    written to or the disk is full.
    """
    text, name = _to_json(record), slug(record.prompt, record.seed)
    data = {".json": text.encode() + b"\n", **(companions or {}), ".png": png.encode(image, text)}
    for number in itertools.chain([""], (f"_{n}" for n in itertools.count(2))):
        path = Path(folder) / f"{name}{number}.png"
        there = [end for end in SUFFIXES if os.path.lexists(path.with_suffix(end))]
        replaces = ".png" in there and _supersedes(record, path)
        if there and not (replaces and all(_is_ours(path.with_suffix(end)) for end in there)):
            continue
        with suppress(png.Taken):
            png.write({path.with_suffix(end): each for end, each in data.items()}, new=not replaces)
            return path
    raise AssertionError("there is always another number")


def _supersedes(record: Record, path: Path) -> bool:
    with suppress(ValueError, OSError):
        old = read_record(path)
        same = all(getattr(old, name) == getattr(record, name) for name in SAME_PICTURE)
        return same and record.steps_done >= old.steps_done
    return False


def _is_ours(path: Path) -> bool:
    """Whether a file was written beside a picture by this package: it says so inside."""
    with suppress(ValueError, OSError, AttributeError):
        data = path.read_bytes()
        own = path.suffix != ".json" or {"prompt", "seed", "package"} <= json.loads(data).keys()
        return own and (path.suffix == ".json" or png.CHUNK.encode() in data)
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
    return Record(**values)


def read_values(path: str | Path) -> dict[str, Any]:
    """Return what stands in the record of a PNG, a picture's or a figure's; raises as read_record."""
    _, text = png.decode(path)
    if text is None:
        raise ValueError(f"{path} holds no record: fusedream-nb did not write it, or it was edited since.")
    try:
        values = dict(json.loads(text))
        if values["format"] > FORMAT:
            raise ValueError(f"its format {values['format']} is newer than this program; upgrade it")
        if "figure" not in values:
            for name, value in asdict(Record(**values)).items():
                if not _fits(value, get_type_hints(Record)[name]):
                    raise ValueError(f"its {name} is {str(value)[:40]!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"The record in {path} cannot be read ({error}).") from error
    return values


def _fits(value: Any, wanted: Any) -> bool:  # noqa: ANN401
    """Whether a value from JSON is of a field's type."""
    kind, parts = get_origin(wanted), get_args(wanted)
    if kind is UnionType:
        return any(_fits(value, part) for part in parts)
    if kind is list:
        return isinstance(value, list) and all(_fits(each, parts[0]) for each in value)
    if kind is dict:
        return isinstance(value, dict) and all(_fits(each, parts[1]) for each in value.values())
    if wanted in (int, float):
        return isinstance(value, int | wanted) and not isinstance(value, bool) and abs(value) < 2**63
    return wanted is Any or isinstance(value, wanted)
