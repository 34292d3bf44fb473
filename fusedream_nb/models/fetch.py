"""Downloads by pooch: mirrors in order, each file checked *before* it gets its name.

While a file comes it is called ``NAME.part``. One without a published hash must have the announced length and
be one that can be read; its hash is noted beside it, for ``fusedream-nb models verify``.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

from .weights import Entry, File, note, sha256

TIMEOUT = 30.0  # seconds in which a server must say something
ROUNDS = 2  # times that the mirrors are gone through
PAUSE = 1.0  # seconds between the rounds
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HERE = (*_NO_ROOM, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)  # no other source mends it


def offline() -> bool:
    """Whether FUSEDREAM_OFFLINE or HF_HUB_OFFLINE asks for no downloads."""
    asked = (os.environ.get(name, "") for name in ("FUSEDREAM_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.strip().lower() in ("1", "on", "true", "yes") for value in asked)


def sources(row: Entry, file: File) -> tuple[str, ...]:
    """Return a file's addresses in order; FUSEDREAM_MIRROR, whose folders are models, comes first."""
    mirror = (os.environ.get("FUSEDREAM_MIRROR") or "").rstrip("/")
    return ((f"{mirror}/{row.folder.name}/{file.name}",) if mirror else ()) + file.urls


def fetch(row: Entry, *, again: bool = False, timeout: float = TIMEOUT, pause: float = PAUSE) -> Path:
    """Download the files of a model that are missing into its folder, and return that.

    With ``again`` what is here is checked too, and what is wrong is replaced. Processes that fetch the same
    file wait for each other. Raises FileNotFoundError, saying what to put where, if downloads are switched
    off (see :func:`offline`) or no source has a right file, and OSError where there is no room.
    """
    files = [file for file in row.files if again or not (row.folder / file.name).exists()]
    files = [file for file in files if row.verify(file)[0] == "wrong"]
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
    """Try the sources in turn until one gives the right file."""
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
                    status = getattr(getattr(error, "response", None), "status_code", None)
                    said = type(error).__name__ if isinstance(error, OSError) else str(error)
                    failures[url] = f"HTTP {status}" if status else said
    listed = "; ".join(f"{url} ({what})" for url, what in failures.items())
    raise FileNotFoundError(f"{row.missing()} No source gave {file.name}: {listed}.")


def _retrieve(url: str, file: File, target: Path, timeout: float) -> None:
    """Download from one source by pooch, which names the file once its hash is the published one."""
    import pooch
    from tqdm import tqdm

    part = target.with_name(f"{target.name}.part")
    hidden = not (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel"))

    def download(url: str, output: str, pooch_: object) -> None:
        with (
            tqdm(desc=file.name, total=1, unit="B", unit_scale=True, disable=hidden) as bar,
            part.open("wb") as stream,
        ):
            headers = {"Accept-Encoding": "identity"}
            pooch.HTTPDownloader(bar, timeout=timeout, headers=headers)(url, stream, pooch_)
        _check(part, file, bar.total)
        part.replace(output)

    pooch.get_logger().setLevel("WARNING")
    note(target).unlink(missing_ok=True)
    known = f"sha256:{file.sha256}" if file.whole_hash else None
    if not known:
        target.unlink(missing_ok=True)  # pooch would take whatever lies there
    free, required = shutil.disk_usage(target.parent).free, file.bytes or 0
    if required > free:
        raise OSError(errno.ENOSPC, f"{free:,} bytes are free, {required:,} are required", str(target))
    try:
        pooch.retrieve(url, known, target.name, target.parent, downloader=download)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise OSError(errno.ENOSPC, "There is no room on the disk for this file", str(target)) from error
    finally:
        part.unlink(missing_ok=True)
    if not known:
        note(target).write_text(f"{sha256(target)}\n")


def _check(part: Path, file: File, announced: int) -> None:
    """Raise ValueError unless a file has its length and hash, where known, and the announced length, if any.

    Without a whole hash it must be one that can be read as what its name says: not every change is noticed,
    but pages, pieces and other files are.
    """
    size = part.stat().st_size
    for expected, who in ((file.bytes, "it should have"), (announced, "the server announced")):
        if expected and size != expected:
            raise ValueError(f"{size:,} bytes came, not the {expected:,} that {who}")
    if file.whole_hash:
        return  # pooch checks it
    digest = sha256(part)
    if not digest.startswith(file.sha256 or ""):
        raise ValueError(f"what came has the hash {digest[:12]}…, not {file.sha256}…")
    from .files import load_tensors, read_config

    suffix = Path(file.name).suffix
    try:
        if suffix == ".json":
            read_config(part)
        else:
            load_tensors(part, suffix)
            if zipfile.is_zipfile(part):  # torch's
                with part.open("rb") as stream:
                    stream.seek(-22, os.SEEK_END)
                    ends = stream.read(4) == b"PK\5\6"  # nothing follows: torch writes no comment
                if zipfile.ZipFile(part).testzip() or not ends:
                    raise ValueError("a checksum is wrong, or something follows")
    except Exception as error:  # whatever it says: it cannot be read
        raise ValueError(f"what came is no {suffix} file") from error
