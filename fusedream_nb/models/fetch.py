"""Bringing weights here with pooch: mirrors in order, resumed, checked *before* a file gets its name.

While a file comes it is called ``NAME.part``. What is interrupted goes on from there, if a published hash
can tell whether the whole is right; else it begins again. A file of which no hash is published must have the
length that the server announced and be one that can be read; its hash is noted beside it, and checked by
``fusedream-nb models verify`` from then on.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .weights import Entry, File, note, sha256

TIMEOUT = 30.0  # seconds in which a server must say something
ROUNDS = 2  # times that the mirrors are gone through
PAUSE = 1.0  # seconds between the rounds
CHUNK = 1 << 16  # bytes: at most these are lost where a download is interrupted
_YES = ("1", "on", "true", "yes")
_WHOLE = 64  # digits of a hash that is published whole
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HERE = (*_NO_ROOM, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)  # no other source mends it


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

    With ``again`` what is here is checked too, and what is wrong is replaced. Processes that fetch the same
    file wait for each other. Raises FileNotFoundError, saying what to put where, if downloads are switched
    off (see :func:`offline`) or no source has a right file, and OSError where there is no room.
    """

    def bad(file: File) -> bool:
        return row.verify(file)[0] == "wrong" if again else not (row.folder / file.name).exists()

    files = [file for file in row.files if bad(file)]
    if files and offline():
        raise FileNotFoundError(f"{row.missing()} Downloads are off (FUSEDREAM_OFFLINE, HF_HUB_OFFLINE).")
    for file in files:
        if not sources(row, file):
            raise FileNotFoundError(row.missing())
        try:
            _bring(row, file, timeout, pause)
        except OSError:
            with suppress(OSError):  # another process uses them, or they hold something
                (row.folder / f"{file.name}.lock").unlink()
                row.folder.rmdir()
                row.folder.parent.rmdir()
            raise
    return row.folder


def _bring(row: Entry, file: File, timeout: float, pause: float) -> None:
    """Try the sources in turn, as often as :data:`ROUNDS` says, until one gives the right file."""
    from filelock import FileLock

    target = row.folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    with FileLock(target.with_name(f"{target.name}.lock")):
        if row.verify(file)[0] != "wrong":
            return  # another process has brought it meanwhile
        for number in range(ROUNDS):
            time.sleep(pause if number else 0)
            for url in sources(row, file):
                try:
                    return _retrieve(url, file, target, timeout)
                except (OSError, ValueError) as error:
                    if getattr(error, "errno", None) in _HERE:
                        raise
                    failures[url] = _why(error)
    listed = "; ".join(f"{url} ({what})" for url, what in failures.items())
    raise FileNotFoundError(f"{row.missing()} No source gave {file.name}: {listed}.")


def _why(error: Exception) -> str:
    """Return in a few words why a source gave nothing: its answer's number, or the kind of failure."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if status else type(error).__name__ if isinstance(error, OSError) else str(error)


def _retrieve(url: str, file: File, target: Path, timeout: float) -> None:
    """Bring one file from one source by pooch, which names it once its hash is the published one."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    whole = len(file.sha256 or "") == _WHOLE
    note(target).unlink(missing_ok=True)
    if not whole:
        target.unlink(missing_ok=True)  # pooch would take whatever lies there
    known = f"sha256:{file.sha256}" if whole else None
    pooch.retrieve(url, known, target.name, target.parent, downloader=_Resumed(file, target, timeout))
    if not whole:
        note(target).write_text(f"{sha256(target)}\n")


@dataclass
class _Resumed:
    """A downloader of pooch's: appends to NAME.part, and hands that over once it is a whole file."""

    file: File
    target: Path
    timeout: float

    def __call__(self, url: str, output: str, pooch: object) -> None:
        from pooch import HTTPDownloader
        from tqdm import tqdm

        part = self.target.with_name(f"{self.target.name}.part")
        resumable = len(self.file.sha256 or "") == _WHOLE
        have = part.stat().st_size if resumable and part.exists() else 0
        _room(part, (self.file.bytes or 0) - have)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        hidden = not (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel"))
        try:
            bar = tqdm(desc=self.file.name, total=1, unit="B", unit_scale=True, disable=hidden)
            with bar, part.open("ab" if have else "wb") as stream:
                HTTPDownloader(bar, CHUNK, timeout=self.timeout, headers=headers)(url, stream, pooch)
            check(part, self.file, have + bar.total if bar.total else None)
            os.replace(part, output)
        except (OSError, ValueError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            no_room = getattr(error, "errno", None) in _NO_ROOM
            useless = isinstance(error, ValueError) or no_room or status == 416 or not resumable
            if useless or not part.stat().st_size:
                part.unlink(missing_ok=True)
            if no_room:
                message = "There is no room on the disk for this file"
                raise OSError(errno.ENOSPC, message, str(self.target)) from error
            raise


def _room(part: Path, required: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if required > free:
        raise OSError(errno.ENOSPC, f"{free:,} bytes are free, {required:,} are required", str(part))


def check(part: Path, file: File, announced: int | None) -> None:
    """Raise ValueError unless a file that came has the length and the hash it should have, where known.

    ``announced`` is the length that the server sent. Without a whole hash the file must be one that can be
    read as what its name says: that does not tell every change, but pages, pieces and other files.
    """
    size = part.stat().st_size
    for expected, who in ((file.bytes, "it should have"), (announced, "the server announced")):
        if expected is not None and size != expected:
            raise ValueError(f"{size:,} bytes came, not the {expected:,} that {who}")
    if len(file.sha256 or "") == _WHOLE:
        return  # pooch checks it
    digest = sha256(part)
    if not digest.startswith(file.sha256 or ""):
        raise ValueError(f"what came has the hash {digest[:12]}…, not {file.sha256}…")
    suffix = Path(file.name).suffix
    try:
        _read(part, suffix)
    except Exception as error:  # whatever it says: it cannot be read
        raise ValueError(f"what came is no {suffix} file") from error


def _read(path: Path, suffix: str) -> None:
    """Read a file as what its name says, whole."""
    if suffix == ".json":
        if not isinstance(json.loads(path.read_text("utf-8")), dict):
            raise ValueError("no object")
    elif suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt"):
            pass
    else:
        from .files import load_tensors

        load_tensors(path)
        if zipfile.is_zipfile(path) and (zipfile.ZipFile(path).testzip() or not _ends(path)):
            raise ValueError("not as it was written: a checksum is wrong, or something follows")


def _ends(path: Path) -> bool:
    """Whether a zip file's end is the file's; torch writes no comment after it."""
    with path.open("rb") as file:
        file.seek(-22, os.SEEK_END)
        return file.read(4) == b"PK\5\6"
