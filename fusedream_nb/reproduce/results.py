"""What a notebook gave when it was run: kept beside its figures, read back, replaced as a whole."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusedream_nb.notebook.claims import read_claims
from fusedream_nb.records import png
from fusedream_nb.reproduce import figures
from fusedream_nb.reproduce.pool import EXECUTED, FIGURES, LOG, OUTCOME

VERDICT = re.compile(r"^(.+?) · (.+) · (holds|differs|not counted)$", re.MULTILINE)  # as a claim is printed


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

        Cells tagged ``close-call`` are not compared: their verdicts turn with the seed.
        """
        shown: dict[bool, dict[tuple[str, str], str]] = {True: {}, False: {}}
        for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
            close = "close-call" in cell["metadata"].get("tags", [])
            for output in cell.get("outputs", []):
                for figure, statement, word in VERDICT.findall("".join(output.get("text", ""))):
                    shown[close][figure, statement] = word
        now = {(claim["figure"], claim["statement"]): verdict(claim) for claim in self.claims}
        expected = shown[False]
        compared = [claim for claim in {**expected, **now} if claim not in shown[True]]
        return [
            f"{' · '.join(claim)}: {now.get(claim, 'nothing')}, committed {expected.get(claim, 'nothing')}"
            for claim in compared
            if now.get(claim) != expected.get(claim)
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
    drawn = sorted(path for path in (scratch / FIGURES).glob("[!.]*") if path.suffix in (".png", ".svg"))
    result = Result(
        name,
        made_by,
        [{"file": path.name, "alt": _alt(path.with_suffix(".png"))} for path in drawn],
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
    return {
        "seconds": 0.0,
        "peak": None,
        "failure": {"cell": "", "source": "", "error": error, "traceback": log},
    }


def _alt(path: Path) -> str:
    from PIL import Image

    with suppress(OSError), Image.open(path) as picture:
        return str(picture.info.get("Description", ""))
    return ""
