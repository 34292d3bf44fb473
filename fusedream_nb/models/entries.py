"""A model that has a name: its files, where they can be had, and whether they are here and right."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class File:
    """One file of a model: its name in the model's folder, size, hash and sources, the best first.

    ``sha256`` may be the hash's first digits, where no more are published.
    """

    name: str
    bytes: int | None = None
    sha256: str | None = None
    urls: tuple[str, ...] = ()

    def told(self) -> str:
        """Return its name, size and sources in words."""
        size = f" ({self.bytes:,} bytes)" if self.bytes else ""
        return f"{self.name}{size}" + (f": {' or '.join(self.urls)}" if self.urls else "")


@dataclass(frozen=True)
class Entry:
    """One model that can be loaded by its name; ``by_hand`` says where else its weights are published."""

    name: str
    role: str
    licence: str
    files: tuple[File, ...]
    folder: Path
    by_hand: str = ""

    @property
    def bytes(self) -> int | None:
        """Size of all files together, or None where one is not known."""
        sizes = [file.bytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def here(self) -> bool:
        """Whether every file is in its place (see :meth:`problems` for their hashes)."""
        return all((self.folder / file.name).exists() for file in self.files)

    def problems(self) -> list[str]:
        """Return a sentence for each file that is missing or is not what it should be."""
        return [text for file in self.files if (text := self.problem(file))]

    def problem(self, file: File) -> str | None:
        """Return what is wrong with a file, which may be nothing: its hash is that which is published.

        Where none is, or not all of it, it is that of the file which was first fetched.
        """
        path = self.folder / file.name
        if not path.exists():
            return f"{path} is missing."
        noted = note(path)
        known = noted.read_text().strip() if noted.exists() else file.sha256
        digest = sha256(path) if known or file.sha256 else ""
        if not digest.startswith(known or "") or not digest.startswith(file.sha256 or ""):
            return f"{path} does not have the hash it should have; delete it and fetch it again."
        return None

    def require(self) -> Path:
        """Return the folder, or raise FileNotFoundError saying what to put where."""
        if not self.here:
            raise FileNotFoundError(self.missing())
        return self.folder

    def missing(self) -> str:
        """Say what is not here, how large it is, where it can be had, where to put it, and its licence."""
        gone = [file for file in self.files if not (self.folder / file.name).exists()] or self.files
        names = " and ".join(file.name for file in gone)
        sizes = [file.bytes for file in gone]
        size = "size not known" if None in sizes else f"{sum(s for s in sizes if s):,} bytes"
        sources = "; ".join(file.told() for file in gone if file.urls)
        elsewhere = f" Also published: {self.by_hand}." if self.by_hand else ""
        where = f", or run `fusedream-nb models fetch {self.name}`. {sources}." if sources else "."
        return (
            f"{self.name} is not on this machine: put {names} ({size}; licence: {self.licence}) into "
            f"{self.folder}{where}{elsewhere}"
        )


def note(path: Path) -> Path:
    """Return the file beside a file that keeps its hash, where none or not all of it is published."""
    return path.with_name(f"{path.name}.sha256")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
