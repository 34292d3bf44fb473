"""What a notebook gave when it was run: kept beside its figures, read back, replaced as a whole."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusedream_nb.notebook.claims import read_claims
from fusedream_nb.records import png
from fusedream_nb.reproduce import execute, figures


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


def read(path: Path) -> Result | None:
    """Return the result in a file, None where there is none that this version understands."""
    with suppress(OSError, ValueError, TypeError):
        return Result(**json.loads(path.read_text("utf-8")))
    return None


def collect(name: str, made_by: dict[str, Any], scratch: Path, code: int, out: Path) -> Result:
    """Move what a notebook left in its scratch folder to ``out``; return its result.

    ``code`` is what its process ended with. The result's file, ``<name>.json``, comes last.
    """
    drawn = sorted(path for path in (scratch / "figures").glob("[!.]*") if path.suffix in (".png", ".svg"))
    result = Result(
        name,
        made_by,
        [{"file": path.name, "alt": _alt(path.with_suffix(".png"))} for path in drawn],
        [asdict(told) for told in read_claims(scratch / "claims.jsonl")],
        **_outcome(scratch, code),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _forget(out / f"{name}.json", {path.name for path in drawn})
    for path in drawn:
        path.replace(out / path.name)
    if (scratch / execute.EXECUTED).exists():
        (scratch / execute.EXECUTED).replace(out / f"{name}.ipynb")
    text = json.dumps(asdict(result), ensure_ascii=False, indent=1)
    png.write({out / f"{name}.json": text.encode("utf-8", "replace")})
    shutil.rmtree(scratch, ignore_errors=True)
    return result


def _outcome(scratch: Path, code: int) -> dict[str, Any]:
    """Return seconds, peak and failure, also of a process that could not tell."""
    with suppress(OSError, ValueError):
        return json.loads((scratch / "outcome.json").read_text("utf-8"))
    log = (scratch / "log.txt").read_text("utf-8", "replace")
    error = f"The notebook's process ended with code {code}."
    failure = {"cell": "", "source": "", "error": error, "traceback": log}
    return {"seconds": 0.0, "peak": None, "failure": failure}


def _alt(path: Path) -> str:
    from PIL import Image

    with suppress(OSError), Image.open(path) as picture:
        return str(picture.info.get("Description", ""))
    return ""


def _forget(path: Path, drawn: set[str]) -> None:
    """Remove an old result, and the figures that its successor did not draw."""
    old = read(path)
    path.unlink(missing_ok=True)
    for name in {row["file"] for row in old.figures} - drawn if old else ():
        (path.parent / Path(name).name).unlink(missing_ok=True)
