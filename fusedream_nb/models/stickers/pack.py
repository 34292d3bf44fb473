"""Pack trained weights as they are shipped: ``python -m fusedream_nb.models.stickers.pack FOLDER [NAME…]``.

Writes half-precision safetensors with their configurations, and a manifest of sizes and hashes. With names,
packs only those and leaves all other files, and their rows in the manifest, as they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import save_file

from fusedream_nb.models.weights import STICKERS, sha256

from .networks import CLIP_CONFIGS, GENERATOR_CONFIG, VQGAN_CONFIG
from .nouns import NOUNS
from .train_upscaler import UPSCALER_CONFIG
from .train_vqgan import LAWS

NEEDED = ("clip", "judge", "generator", "trunk")
NAMES = (*NEEDED, *LAWS, "upscaler")


def pack(runs: Path, target: Path = STICKERS, only: Collection[str] = ()) -> None:
    """Turn the ``weights.pt`` of each finished run into the folder of shipped weights.

    ``only`` names the runs to pack; without it those of NEEDED must be there, and others may be missing:
    what was shipped of them before then stays. Raises ValueError for a name that no run has.
    """
    if unknown := sorted(set(only) - set(NAMES)):
        raise ValueError(f"No model is called {unknown[0]!r}; known are {', '.join(NAMES)}.")
    manifest = target / "manifest.json"
    before = json.loads(manifest.read_text()) if only and manifest.exists() else {}
    names = only or [name for name in NAMES if name in NEEDED or (runs / name / "weights.pt").exists()]
    written = {path for name in names for path in _pack(name, runs / name, target)}
    files = written if only else {p for p in target.rglob("*") if p.suffix in (".safetensors", ".json")}
    rows = before | {
        path.relative_to(target).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in files
        if path != manifest
    }
    ordered = {name: rows[name] for name in sorted(rows, key=PurePosixPath)}
    manifest.write_text(json.dumps(ordered, indent=1) + "\n")


def _pack(name: str, run: Path, target: Path) -> list[Path]:
    """Write the files of one model and return their paths."""
    if name in CLIP_CONFIGS:
        config = {
            "model_cfg": CLIP_CONFIGS[name],
            "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
            "tokenizer": "words",
        }
        return _write(run, target / name / "open_clip_model.safetensors", config, "open_clip_config.json")
    if name == "trunk":
        return _write(run, target / "lpips" / "model.safetensors")
    if name in LAWS:
        config = {"_class_name": "VQModel", **VQGAN_CONFIG}
        return _write(run, target / name / "diffusion_pytorch_model.safetensors", config, "config.json")
    config = UPSCALER_CONFIG if name == "upscaler" else {**GENERATOR_CONFIG, "class_names": NOUNS}
    return _write(run, target / name / "model.safetensors", config, "config.json")


def _write(
    run: Path, target: Path, config: dict[str, Any] | None = None, config_name: str = ""
) -> list[Path]:
    tensors = torch.load(run / "weights.pt", weights_only=True)
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in tensors.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(half, target)
    if config is None:
        return [target]
    described = target.parent / config_name
    described.write_text(json.dumps(config, indent=1) + "\n")
    return [target, described]


if __name__ == "__main__":
    pack(Path(sys.argv[1]), only=sys.argv[2:])
