"""Bringing weights here: mirrors in order, resumed, and checked *before* a file gets its name.

While a file comes it is called ``NAME.part``. What is interrupted goes on from there, if a published hash
can tell whether the whole is right; else it begins anew. A file of which no hash is published must have the
length that the server announced and be one that can be read; its hash is noted beside it, and checked by
``fusedream-nb models verify`` from then on.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .checks import WHOLE, checked
from .entries import Entry, File, note

TIMEOUT = 30.0  # seconds in which a server must say something
ROUNDS = 2  # times that the mirrors are gone through
PAUSE = 1.0  # seconds between the rounds
CHUNK = 1 << 16  # bytes: at most these are lost where a download is interrupted
_YES = ("1", "on", "true", "yes")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HERE = (*_NO_ROOM, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)  # no other source mends it


class Bar:
    """A progress bar as pooch wants it, drawn on stderr by rich where somebody looks."""

    def __init__(self, name: str, have: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
        seen = console.is_terminal or console.is_jupyter
        self.progress = Progress(*columns, TimeRemainingColumn(), console=console, disable=not seen)
        self.have, self.announced = have, 0
        self.task = self.progress.add_task(name, total=None, completed=have)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    @property
    def total(self) -> int:
        """How many bytes the server announced; 0 where it said nothing."""
        return self.announced

    @total.setter
    def total(self, total: int) -> None:
        self.announced = total
        self.progress.update(self.task, total=self.have + total if total else None)

    def update(self, amount: int) -> None:
        """Count bytes that came."""
        self.progress.advance(self.task, amount)

    def reset(self) -> None:
        """Begin to count anew."""
        self.progress.update(self.task, completed=self.have)

    def close(self) -> None:
        """Do nothing: the bar is closed by whoever opened it."""


def offline() -> bool:
    """Whether FUSEDREAM_OFFLINE or HF_HUB_OFFLINE asks for no downloads."""
    names = ("FUSEDREAM_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").strip().lower() in _YES for name in names)


def sources(row: Entry, file: File) -> tuple[str, ...]:
    """Return a file's addresses in order; FUSEDREAM_MIRROR, whose folders are models, comes first."""
    mirror = (os.environ.get("FUSEDREAM_MIRROR") or "").rstrip("/")
    return ((f"{mirror}/{row.folder.name}/{file.name}",) if mirror else ()) + file.urls


def fetch(row: Entry, *, again: bool = False, timeout: float = TIMEOUT, pause: float = PAUSE) -> Path:
    """Bring the files of a model that are not here into its folder, and return that.

    With ``again`` what is here is checked too, and what is wrong is replaced. Processes that want the same
    file wait for each other. Raises FileNotFoundError, saying what to put where, if downloads are switched
    off (see :func:`offline`) or no source has a right file, and OSError where there is no room.
    """
    wrong = [f for f in row.files if (row.problem(f) if again else not (row.folder / f.name).exists())]
    if wrong and offline():
        raise FileNotFoundError(f"{row.missing()} Downloads are off (FUSEDREAM_OFFLINE, HF_HUB_OFFLINE).")
    for file in wrong:
        if not sources(row, file):
            raise FileNotFoundError(row.missing())
        try:
            _bring(row, file, timeout, pause)
        except OSError:
            _tidy(row.folder, file)
            raise
    return row.folder


def _tidy(folder: Path, file: File) -> None:
    """Leave no lock behind, nor a folder that is empty."""
    with suppress(OSError):  # another process uses them, or they hold something
        (folder / f"{file.name}.lock").unlink()
        folder.rmdir()
        folder.parent.rmdir()


def _bring(row: Entry, file: File, timeout: float, pause: float) -> None:
    """Try the sources in turn, as often as :data:`ROUNDS` says, until one gives the right file."""
    from filelock import FileLock

    target = row.folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    told: dict[str, str] = {}
    with FileLock(target.with_name(f"{target.name}.lock")):
        if row.problem(file) is None:
            return  # another process has brought it meanwhile
        for number in range(ROUNDS):
            time.sleep(pause if number else 0)
            for url in sources(row, file):
                try:
                    return _download(url, file, target, timeout)
                except (OSError, ValueError) as error:
                    if getattr(error, "errno", None) in _HERE:
                        raise
                    told[url] = _why(error)
    listed = "; ".join(f"{url} ({what})" for url, what in told.items())
    raise FileNotFoundError(f"{row.missing()} No source gave {file.name}: {listed}.")


def _why(error: Exception) -> str:
    """Return in a few words why a source gave nothing: its answer's number, or the kind of failure."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if status else type(error).__name__ if isinstance(error, OSError) else str(error)


def _download(url: str, file: File, target: Path, timeout: float) -> None:
    """Bring one file from one source, check it, and give it its name."""
    from pooch import HTTPDownloader

    part = target.with_name(f"{target.name}.part")
    resumable = len(file.sha256 or "") == WHOLE
    have = part.stat().st_size if resumable and part.exists() else 0
    _room(part, (file.bytes or 0) - have)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with Bar(file.name, have) as bar, part.open("ab" if have else "wb") as stream:
            get = HTTPDownloader(progressbar=bar, chunk_size=CHUNK, timeout=timeout, headers=headers)
            get(url, stream, None)
        digest = checked(part, file, have + bar.announced if bar.announced else None)
    except (OSError, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        wrong = isinstance(error, ValueError) or error.errno in _NO_ROOM or status == 416
        if wrong or not resumable or not part.stat().st_size:
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise OSError(error.errno, "There is no room on the disk for this file", str(target)) from error
        raise
    note(target).unlink(missing_ok=True)
    os.replace(part, target)
    if not resumable:
        note(target).write_text(f"{digest}\n")


def _room(part: Path, wanted: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if wanted > free:
        raise OSError(errno.ENOSPC, f"There are {free:,} bytes free, and {wanted:,} are wanted", str(part))
