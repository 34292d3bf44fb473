"""Reading weights, whole or not at all; and the precision that they compute in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


def read_tensors(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors, as float32, of the first of some files that a folder has.

    Raises FileNotFoundError where it has none of them.
    """
    for name in names:
        path = folder / name
        if path.exists():
            suffix = path.suffix
            loaded = (
                load_file(path) if suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
            )
            return {k: v.float() if v.is_floating_point() else v for k, v in loaded.items()}
    raise FileNotFoundError(f"{folder} holds no weights; put {' or '.join(names)} there.")


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load a state dict of which every key and every shape must match.

    Raises ValueError naming what is missing, what is surplus and what has another shape.
    """
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - wanted.keys())
    shapes = sorted(k for k in wanted.keys() & tensors.keys() if wanted[k].shape != tensors[k].shape)
    if missing or surplus or shapes:
        found = {"missing": missing, "surplus": surplus, "of another shape": shapes}
        lists = "; ".join(f"{what}: {_some(keys)}" for what, keys in found.items() if keys)
        raise ValueError(f"The weights in {source} are not those of this model ({lists}).")
    model.load_state_dict(tensors)


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def autocast(like: Tensor, dtype: torch.dtype) -> torch.autocast:
    """Compute in a dtype on the device of a tensor; float32 leaves everything as it is."""
    return torch.autocast(like.device.type, dtype, enabled=dtype is not torch.float32)
