"""Pack trained weights as they are shipped: ``python -m training.pack FOLDER [NAME…]``.

Writes half-precision safetensors with their configurations, and a manifest of sizes and hashes. With names,
packs only those and leaves all other files, and their rows in the manifest, as they are.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fusedream_nb.models.encoders import PRESENCE
from fusedream_nb.models.weights import STICKERS, sha256

from . import readers
from .encoders import SEEDS, configured
from .vqgan import LAWS

NAMES = (*SEEDS, *readers.SEEDS, "generator", "trunk", *LAWS, "upscaler")
FOLDERS = {"trunk": "lpips", "presence": "judge"}
FILES = dict.fromkeys(LAWS, "diffusion_pytorch_model.safetensors") | {"presence": PRESENCE}


def pack(runs: Path, target: Path = STICKERS, only: Collection[str] = ()) -> None:
    """Turn the ``weights.pt`` of finished runs into the folder of shipped weights.

    ``only`` names the runs to pack; without it all must be there.
    Raises ValueError for a name that no run has.
    """
    if unknown := sorted(set(only) - set(NAMES)):
        raise ValueError(f"No model is called {unknown[0]!r}; known are {', '.join(NAMES)}.")
    for name in only or NAMES:
        tensors = torch.load(runs / name / "weights.pt", weights_only=True)
        half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in tensors.items()}
        # The third is there to check the judge, so it stays outside the package.
        inside = name != "third" or target != STICKERS
        folder = target / FOLDERS.get(name, name) if inside else readers.FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        _write(name, half, folder)
    write_manifest(target)


def write_manifest(target: Path) -> None:
    """Write the sizes and hashes of all files of a folder of weights."""
    manifest = target / "manifest.json"
    files = {p for p in target.rglob("*") if p.suffix in (".safetensors", ".json")} - {manifest}
    rows = {
        path.relative_to(target).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(files)
    }
    manifest.write_text(json.dumps(rows, indent=1) + "\n")


def _write(name: str, tensors: dict[str, Tensor], folder: Path) -> None:
    if name in SEEDS:
        scale, offset = tensors.pop("presence").tolist()
        save_file(tensors, folder / "open_clip_model.safetensors")
        config = {
            "model_cfg": configured(name),
            "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
            "tokenizer": "words",
            "presence": {"scale": scale, "offset": offset},
        }
        _describe(folder / "open_clip_config.json", config)
        return
    save_file(tensors, folder / FILES.get(name, "model.safetensors"))
    shipped = STICKERS / folder.name / "config.json"
    if shipped.exists() and folder.parent != STICKERS:
        shutil.copy(shipped, folder)


def _describe(path: Path, config: dict[str, Any]) -> None:
    path.write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    pack(Path(sys.argv[1]), only=sys.argv[2:])
