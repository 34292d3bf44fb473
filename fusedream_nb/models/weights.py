"""What can be loaded: names, sizes, hashes, licences, and what to do where a file is missing."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

STICKERS = Path(__file__).parent / "stickers" / "weights"
_S3 = "https://s3.amazonaws.com/models.huggingface.co/biggan/"
_HUB = "https://huggingface.co/"
_REAL_ESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.0/RealESRGAN_x4plus.pth"


@dataclass(frozen=True)
class File:
    """One file of a model: its name in the model's folder, size, hash and sources."""

    name: str
    bytes: int | None = None
    sha256: str | None = None
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One model that can be loaded by its name."""

    name: str
    role: str
    licence: str
    files: tuple[File, ...]
    folder: Path

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
        return [text for file in self.files if (text := self._problem(file))]

    def _problem(self, file: File) -> str | None:
        path = self.folder / file.name
        if not path.exists():
            return f"{path} is missing."
        if file.sha256 and sha256(path) != file.sha256:
            return f"{path} does not have the hash it should have; delete it and fetch it again."
        return None

    def require(self) -> Path:
        """Return the folder, or raise FileNotFoundError saying what to put where."""
        missing = [file for file in self.files if not (self.folder / file.name).exists()]
        if not missing:
            return self.folder
        listed = " and ".join(
            f"{file.name}" + (f" ({file.bytes:,} bytes, {file.urls[0]})" if file.bytes and file.urls else "")
            for file in missing
        )
        raise FileNotFoundError(f"{self.name} is not on this machine: put {listed} into {self.folder}.")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache() -> Path:
    """Return the folder of weights: FUSEDREAM_CACHE, or fusedream_nb in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusedream_nb"
    return Path(os.environ.get("FUSEDREAM_CACHE") or default)


def _stickers() -> Entry:
    manifest = STICKERS / "manifest.json"
    listed = json.loads(manifest.read_text()) if manifest.exists() else {}
    files = tuple(File(name, row["bytes"], row["sha256"]) for name, row in listed.items())
    role = "the embedded world: generator, clip, judge, perceptual"
    return Entry("stickers", role, "MIT", files or (File("manifest.json"),), STICKERS)


def catalogue() -> list[Entry]:
    """Return everything that has a name; where files are known, with sizes, hashes and sources."""
    store = cache()
    return [
        _stickers(),
        *(_biggan_deep(store, size) for size in (128, 256, 512)),
        *(_vqgan(store, name, *known) for name, known in _VQGAN.items()),
        Entry(
            "ViT-B-32-quickgelu",
            "clip",
            "MIT",
            (
                File("open_clip_config.json"),
                File("open_clip_model.safetensors", urls=(f"{_HUB}timm/vit_base_patch32_clip_224.openai",)),
            ),
            store / "ViT-B-32-quickgelu",
        ),
        Entry(
            "lpips-squeeze",
            "perceptual",
            "BSD-3-Clause (trunk), BSD-2-Clause (heads)",
            (
                File(
                    "squeezenet1_1-b8a52dc0.pth",
                    4_966_400,
                    "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
                    ("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",),
                ),
            ),
            store / "lpips-squeeze",
        ),
        Entry(
            "realesrgan-x4plus",
            "upscaler",
            "BSD-3-Clause",
            (
                File(
                    "RealESRGAN_x4plus.pth",
                    67_040_989,
                    "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
                    (_REAL_ESRGAN,),
                ),
            ),
            store / "realesrgan-x4plus",
        ),
    ]


_BIGGAN_DEEP = {  # bytes and sha256 of the weights, where they are known
    128: (None, "b86146a8cfcde4cda135adba4b2806f78b3abe2dac9d0fd090cc3ab318604ad9"),
    256: (234_411_737, "5900ef4065047e3aa0d1b66197b7f2664dceb59b27080e414ad57e203c485bc5"),
    512: (None, None),
}


def _biggan_deep(store: Path, size: int) -> Entry:
    name = f"biggan-deep-{size}"
    bytes_, digest = _BIGGAN_DEEP[size]
    files = (
        File("config.json", urls=(f"{_S3}{name}-config.json",)),
        File("pytorch_model.bin", bytes_, digest, (f"{_S3}{name}-pytorch_model.bin",)),
    )
    return Entry(name, "generator", "MIT (DeepMind's weights: Apache 2.0)", files, store / name)


_MIRROR = f"{_HUB}Somnai/pytti-vqgan-checkpoints/resolve/debc22c8f285c7734980c464ff992d335dde6e9a/"
_VQGAN = {  # checkpoints of taming-transformers, f16: bytes, sha256, source, licence
    "vqgan-imagenet-1024": (
        None,
        None,
        "https://heibox.uni-heidelberg.de/f/140747ba53464f49b476/?dl=1",
        "MIT",
    ),
    "vqgan-imagenet-16384": (
        980_092_370,
        "845a68805098cb666420d5db93df53f3a3b6dd443e6dd85c05759c5b998cd663",
        f"{_MIRROR}imagenet/imagenet.ckpt",
        "MIT",
    ),
    "vqgan-wikiart": (
        None,
        "bd08bb46301f98be1712bb2be9f8868cea30b53137cd985d4d6e8da8b3e02c36",
        f"{_MIRROR}wikiart/wikiart.ckpt",
        "none stated",
    ),
}


def _vqgan(store: Path, name: str, bytes_: int | None, digest: str | None, url: str, licence: str) -> Entry:
    return Entry(name, "generator", licence, (File("model.ckpt", bytes_, digest, (url,)),), store / name)


def entry(name: str) -> Entry:
    """Return the row of a name; raises ValueError listing the known ones."""
    rows = {row.name: row for row in catalogue()}
    if name not in rows:
        raise ValueError(f"No model is called {name!r}; known are {', '.join(rows)}, and any local folder.")
    return rows[name]
