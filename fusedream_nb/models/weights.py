"""What can be loaded: names, sizes, hashes, licences, and whether the files are here and right."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

STICKERS = Path(__file__).parent / "stickers" / "weights"
CLIP = "ViT-B-32-quickgelu"  # plain ViT-B-32 does not have the activation of OpenAI's weights
JUDGE = "ViT-B-32/laion2b_s34b_b79k"  # learnt from other pictures than CLIP's: see `load`
_HUB = "https://huggingface.co"
Verdict = Literal["right", "wrong", "not checked"]


@dataclass(frozen=True)
class File:
    """A file of a model: its name there, size, SHA-256 (or its first digits) and sources, the best first."""

    name: str
    bytes: int | None = None
    sha256: str | None = None
    urls: tuple[str, ...] = ()

    @property
    def whole_hash(self) -> bool:
        """Whether all 64 digits of its hash are published."""
        return len(self.sha256 or "") == 64

    def __str__(self) -> str:
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
        sizes = [file.bytes for file in self.files if file.bytes is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    @property
    def here(self) -> bool:
        """Whether every file is in its place (see :meth:`problems` for their hashes)."""
        return all((self.folder / file.name).is_file() for file in self.files)

    def problems(self) -> list[str]:
        """Return a sentence for each file that is missing or wrong."""
        verdicts = (self.verify(file) for file in self.files)
        return [why for verdict, why in verdicts if verdict == "wrong"]

    def verify(self, file: File) -> tuple[Verdict, str]:
        """Return whether a file has its published hash and that of its download, and how that is known."""
        path = self.folder / file.name
        if not path.is_file():
            return "wrong", f"{path} is missing."
        noted = note(path).read_text().strip() if note(path).exists() else ""
        known = noted or file.sha256
        if not known:
            fresh = f"fusedream-nb models fetch {self.name} --cache FOLDER"
            return "not checked", f"{file.name}: no hash is published; compare it with a fresh copy: {fresh}"
        if not sha256(path).startswith(known) or not known.startswith(file.sha256 or known):
            return "wrong", f"{path} does not have the hash it should have; delete it and fetch it again."
        return "right", f"{file.name}: as {'it was first fetched' if noted else 'published'}"

    def require(self) -> Path:
        """Return the folder, or raise FileNotFoundError saying what to put where."""
        if not self.here:
            raise FileNotFoundError(self.missing())
        return self.folder

    def missing(self) -> str:
        """Say what is not here, its size, licence and sources, and where to put it."""
        gone = [file for file in self.files if not (self.folder / file.name).exists()] or self.files
        total = replace(self, files=tuple(gone)).bytes
        size = "size not known" if total is None else f"{total:,} bytes"
        sources = "; ".join(str(file) for file in gone if file.urls)
        fetch = f", or run `fusedream-nb models fetch {self.name}`. {sources}." if sources else "."
        elsewhere = f" Also published: {self.by_hand}." if self.by_hand else ""
        return (
            f"{self.name} is not on this machine: put {' and '.join(file.name for file in gone)} ({size}; "
            f"licence: {self.licence}) into {self.folder}{fetch}{elsewhere}"
        )


def note(path: Path) -> Path:
    """Return the file beside a file that keeps its hash, where not all of it is published."""
    return path.with_name(f"{path.name}.sha256")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache() -> Path:
    """Return the folder of weights: FUSEDREAM_CACHE, or fusedream_nb in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusedream_nb"
    return Path(os.environ.get("FUSEDREAM_CACHE") or default)


def catalogue(store: Path | None = None) -> list[Entry]:
    """Return all that has a name, in a store (default: :func:`cache`); HF_ENDPOINT may mirror the hub."""
    rows = tomllib.loads(Path(__file__).with_name("weights.toml").read_text("utf-8"))["model"]
    manifest = STICKERS / "manifest.json"
    listed = json.loads(manifest.read_text()) if manifest.exists() else {}
    files = tuple(File(name, row["bytes"], row["sha256"]) for name, row in listed.items())
    role = "the embedded world: generator, clip, judge, perceptual"
    stickers = Entry("stickers", role, "MIT", files or (File("manifest.json"),), STICKERS)
    return [stickers, *(_entry(row, store) for row in rows)]


def _entry(row: dict[str, Any], store: Path | None) -> Entry:
    endpoint = (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    files = [
        File(**file | {"urls": tuple(url.replace(_HUB, endpoint, 1) for url in file["urls"])})
        for file in row["files"]
    ]
    folder = (cache() if store is None else store) / row["name"].replace("/", "--")
    return Entry(**row | {"files": tuple(files), "folder": folder})


def entry(name: str, store: Path | None = None) -> Entry:
    """Return the row of a name, or of any MODEL/TAG of open_clip; ValueError listing the known ones."""
    rows = {row.name: row for row in catalogue(store)}
    model, _, tag = name.partition("/")
    if found := rows.get(name) or rows.get(name.removesuffix("/openai")):
        return found
    repository = ""
    if tag:
        from open_clip.pretrained import get_pretrained_cfg

        repository = get_pretrained_cfg(model, tag).get("hf_hub", "").rstrip("/")
    if not repository:
        raise ValueError(
            f"No model is called {name!r}; known are {', '.join(rows)}, any MODEL/TAG of "
            "open_clip.list_pretrained(), and any local folder."
        )
    names = ("open_clip_config.json", "open_clip_model.safetensors")
    files = [{"name": file, "urls": [f"{_HUB}/{repository}/resolve/main/{file}"]} for file in names]
    return _entry({"name": name, "role": "clip", "licence": "see its model card", "files": files}, store)
