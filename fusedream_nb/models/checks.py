"""Whether a file that came, and has not its name yet, is what it should be."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from .entries import File, sha256

WHOLE = 64  # digits of a hash that is published whole


def checked(part: Path, file: File, announced: int | None) -> str:
    """Return the hash of a file that has the length and the hash it should have, where they are known.

    ``announced`` is the length that the server told. Without a whole hash the file must be one that can be
    read as what its name says: that does not tell every change, but pages, pieces and other files.
    Raises ValueError saying what it is instead.
    """
    size, digest = part.stat().st_size, sha256(part)
    for wanted, who in ((file.bytes, "it should have"), (announced, "the server announced")):
        if wanted is not None and size != wanted:
            raise ValueError(f"{size:,} bytes came, not the {wanted:,} that {who}")
    if not digest.startswith(file.sha256 or ""):
        raise ValueError(f"what came has the hash {digest[:12]}…, not {(file.sha256 or '')[:12]}…")
    if len(file.sha256 or "") < WHOLE and not _readable(part, Path(file.name).suffix):
        raise ValueError(f"what came is no {Path(file.name).suffix} file")
    return digest


def _readable(path: Path, suffix: str) -> bool:
    """Whether a file can be read as what its name says, and is all there."""
    readers: dict[str, Callable[[Path], object]] = {".json": _read_json, ".safetensors": _read_safetensors}
    try:
        readers.get(suffix, _read_torch)(path)
    except Exception:  # whatever it says: it cannot be read
        return False
    return True


def _read_json(path: Path) -> None:
    if not isinstance(json.loads(path.read_text("utf-8")), dict):
        raise ValueError("no object")


def _read_safetensors(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as tensors:
        tensors.keys()


def _read_torch(path: Path) -> None:
    import torch

    from .taming import trusted

    with trusted():
        torch.load(path, "cpu", weights_only=True)
    if zipfile.is_zipfile(path) and (zipfile.ZipFile(path).testzip() or not _ends(path)):
        raise ValueError("not as it was written: a checksum is wrong, or something follows")


def _ends(path: Path) -> bool:
    """Whether a zip file's end is the file's; torch writes no comment after it."""
    with path.open("rb") as file:
        file.seek(-22, os.SEEK_END)
        return file.read(4) == b"PK\5\6"
