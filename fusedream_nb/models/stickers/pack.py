"""Pack trained weights as they are shipped: ``python -m fusedream_nb.models.stickers.pack FOLDER``.

Writes half-precision safetensors with their configurations, and a manifest of sizes and hashes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fusedream_nb.models.weights import STICKERS, sha256

from .networks import CLIP_CONFIGS, GENERATOR_CONFIG, VQGAN_CONFIG
from .nouns import NOUNS
from .train_vqgan import LAWS


def pack(runs: Path, target: Path = STICKERS) -> None:
    """Turn the ``weights.pt`` of each finished run into the folder of shipped weights.

    The VQGANs may be missing; what was shipped of them before then stays.
    """
    for name in ("clip", "judge"):
        config = {
            "model_cfg": CLIP_CONFIGS[name],
            "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
            "tokenizer": "words",
        }
        _write(runs / name, target / name / "open_clip_model.safetensors", config, "open_clip_config.json")
    config = {**GENERATOR_CONFIG, "class_names": NOUNS}
    _write(runs / "generator", target / "generator" / "model.safetensors", config, "config.json")
    _write(runs / "trunk", target / "lpips" / "model.safetensors")
    config = {"_class_name": "VQModel", **VQGAN_CONFIG}
    for name in (name for name in LAWS if (runs / name / "weights.pt").exists()):
        _write(runs / name, target / name / "diffusion_pytorch_model.safetensors", config, "config.json")
    files = sorted(path for path in target.rglob("*") if path.suffix in (".safetensors", ".json"))
    manifest = {
        path.relative_to(target).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in files
        if path.name != "manifest.json"
    }
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _write(run: Path, target: Path, config: dict[str, Any] | None = None, config_name: str = "") -> None:
    tensors = torch.load(run / "weights.pt", weights_only=True)
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in tensors.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(half, target)
    if config is not None:
        (target.parent / config_name).write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
