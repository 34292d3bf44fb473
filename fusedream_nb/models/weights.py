"""What can be loaded: names, sizes, hashes, licences, and what to do where a file is missing."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .entries import Entry, File, sha256

__all__ = ["STICKERS", "Entry", "File", "cache", "catalogue", "entry", "sha256"]

STICKERS = Path(__file__).parent / "stickers" / "weights"
CLIP = "ViT-B-32-quickgelu"  # plain ViT-B-32 has not the activation of OpenAI's weights
JUDGE = "RN50/openai"  # never the one that is climbed
_S3 = "https://s3.amazonaws.com/models.huggingface.co/biggan/"
_GITHUB = "https://github.com/"
_TORCH = "https://download.pytorch.org/models/"
_IVCLAB = f"{_GITHUB}ivclab/BigGAN-Generator-Pretrained-Pytorch/releases/download/v0.0.0/"
_REAL_ESRGAN = f"{_GITHUB}xinntao/Real-ESRGAN/releases/download/v0.1.0/RealESRGAN_x4plus.pth"
_DEEPMIND = "MIT (DeepMind's weights: Apache 2.0)"

_BIGGAN_DEEP = {  # bytes and sha256 of config and weights, where they are known
    128: (None, None, None, "b86146a8cfcde4cda135adba4b2806f78b3abe2dac9d0fd090cc3ab318604ad9"),
    256: (
        715,
        "edd106f65ff28ee1638491a978cfa6bc50dfa0344aab70749a7b8eb08bbec677",
        234_411_737,
        "5900ef4065047e3aa0d1b66197b7f2664dceb59b27080e414ad57e203c485bc5",
    ),
    512: (None, None, None, None),
}
_DRIVE = {  # converted by the authors' own code; FuseDream used these
    256: "https://drive.google.com/file/d/17ymX6rhsgHDZw_g5XgAFW4xLSDocARCM",
    512: "https://drive.google.com/file/d/1sOZ9og9kJLsqMNhaDnPJgzVsBZQ1sjZ5",
}
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
        "imagenet/imagenet.ckpt",
        "MIT",
    ),
    "vqgan-wikiart": (
        None,
        "bd08bb46301f98be1712bb2be9f8868cea30b53137cd985d4d6e8da8b3e02c36",
        "wikiart/wikiart.ckpt",
        "none stated",
    ),
}
_TRUNKS = {  # of torchvision; the digits in a name are the first of its hash
    "squeeze": (
        "squeezenet1_1-b8a52dc0",
        4_966_400,
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    ),
    "alex": ("alexnet-owt-7be5be79", None, "7be5be79"),
    "vgg": ("vgg16-397923af", None, "397923af"),
}


def cache() -> Path:
    """Return the folder of weights: FUSEDREAM_CACHE, or fusedream_nb in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusedream_nb"
    return Path(os.environ.get("FUSEDREAM_CACHE") or default)


def hub(repository: str, file: str, revision: str = "main") -> str:
    """Return the address of a file on the Hugging Face hub, or on its mirror HF_ENDPOINT."""
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{repository}/resolve/{revision}/{file}"


def catalogue(store: Path | None = None) -> list[Entry]:
    """Return everything that has a name; where files are known, with sizes, hashes and sources.

    Their folders are in a store, by default :func:`cache`.
    """
    store = cache() if store is None else store
    return [
        _stickers(),
        *(_biggan_deep(store, size) for size in _BIGGAN_DEEP),
        *(_biggan(store, size) for size in (128, 256, 512)),
        *(_vqgan(store, name, *known) for name, known in _VQGAN.items()),
        _amused(store),
        clip_entry(store, CLIP, "timm/vit_base_patch32_clip_224.openai", "MIT"),
        *(_lpips(store, name, *known) for name, known in _TRUNKS.items()),
        _real_esrgan(store),
    ]


def _stickers() -> Entry:
    manifest = STICKERS / "manifest.json"
    listed = json.loads(manifest.read_text()) if manifest.exists() else {}
    files = tuple(File(name, row["bytes"], row["sha256"]) for name, row in listed.items())
    role = "the embedded world: generator, clip, judge, perceptual"
    return Entry("stickers", role, "MIT", files or (File("manifest.json"),), STICKERS)


def _biggan_deep(store: Path, size: int) -> Entry:
    name = f"biggan-deep-{size}"
    config_bytes, config_hash, bytes_, digest = _BIGGAN_DEEP[size]
    config, weights = f"{_S3}{name}-config.json", f"{_S3}{name}-pytorch_model.bin"
    copies = "osanseviero/BigGAN-deep-128" if size == 128 else ""
    files = (
        File("config.json", config_bytes, config_hash, (config, *_copy(copies, "config.json"))),
        File("pytorch_model.bin", bytes_, digest, (weights, *_copy(copies, "pytorch_model.bin"))),
    )
    return Entry(name, "generator", _DEEPMIND, files, store / name)


def _copy(repository: str, file: str) -> tuple[str, ...]:
    return (hub(repository, file),) if repository else ()


def _biggan(store: Path, size: int) -> Entry:
    file = File(f"biggan{size}-release.pt", urls=(f"{_IVCLAB}biggan{size}-release.pt",))
    licence = "none stated (DeepMind's weights: Apache 2.0)"
    name, drive = f"biggan-{size}", _DRIVE.get(size)
    by_hand = f"{drive} (for a browser; load what it gives by its path)" if drive else ""
    return Entry(name, "generator", licence, (file,), store / name, by_hand)


def _vqgan(store: Path, name: str, bytes_: int | None, digest: str | None, url: str, licence: str) -> Entry:
    if "://" not in url:
        url = hub("Somnai/pytti-vqgan-checkpoints", url, "debc22c8f285c7734980c464ff992d335dde6e9a")
    return Entry(name, "generator", licence, (File("model.ckpt", bytes_, digest, (url,)),), store / name)


def _amused(store: Path) -> Entry:
    names = ("config.json", "diffusion_pytorch_model.safetensors")
    files = tuple(File(name, urls=(hub("amused/amused-256", f"vqvae/{name}"),)) for name in names)
    return Entry("amused", "generator", "OpenRAIL++", files, store / "amused")


def clip_entry(store: Path, name: str, repository: str, licence: str) -> Entry:
    """Return the row of a CLIP that a repository of the hub holds in open_clip's own format."""
    names = ("open_clip_config.json", "open_clip_model.safetensors")
    files = tuple(File(file, urls=(hub(repository, file),)) for file in names)
    return Entry(name, "clip", licence, files, store / name.replace("/", "--"))


def _lpips(store: Path, name: str, stem: str, bytes_: int | None, digest: str) -> Entry:
    file = File(f"{stem}.pth", bytes_, digest, (f"{_TORCH}{stem}.pth",))
    licence = "BSD-3-Clause (trunk), BSD-2-Clause (heads)"
    return Entry(f"lpips-{name}", "perceptual", licence, (file,), store / f"lpips-{name}")


def _real_esrgan(store: Path) -> Entry:
    digest = "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1"
    file = File("RealESRGAN_x4plus.pth", 67_040_989, digest, (_REAL_ESRGAN,))
    return Entry("realesrgan-x4plus", "upscaler", "BSD-3-Clause", (file,), store / "realesrgan-x4plus")


def entry(name: str, store: Path | None = None) -> Entry:
    """Return the row of a name, which may be any of open_clip's, as MODEL/TAG.

    Raises ValueError listing the known ones.
    """
    rows = {row.name: row for row in catalogue(store)}
    model, _, tag = name.partition("/")
    found = (
        rows.get(name)
        or rows.get(name.removesuffix("/openai"))
        or (_open_clip(model, tag, store) if tag else None)
    )
    if found is None:
        raise ValueError(
            f"No model is called {name!r}; known are {', '.join(rows)}, any MODEL/TAG of "
            "open_clip.list_pretrained(), and any local folder."
        )
    return found


def _open_clip(model: str, tag: str, store: Path | None) -> Entry | None:
    from open_clip.pretrained import get_pretrained_cfg

    repository = get_pretrained_cfg(model, tag).get("hf_hub", "").rstrip("/")
    if not repository:
        return None
    return clip_entry(cache() if store is None else store, f"{model}/{tag}", repository, "see its model card")
