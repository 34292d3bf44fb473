"""Reading weights, whole or not at all; and the precision that they compute in."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def read_tensors(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors, as float32, of the first of some files that a folder has.

    Raises FileNotFoundError where it has none of them, and ValueError for one that cannot be read.
    """
    for name in names:
        if (folder / name).exists():
            return read_file(folder / name)
    raise FileNotFoundError(f"{folder} holds no weights; put {' or '.join(names)} there.")


def read_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors, as float32, of a file: safetensors, or torch's own with nothing but tensors.

    Raises ValueError for a file that is broken or that wants to run code.
    """
    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, "cpu", weights_only=True)
        return {k: v.float() if v.is_floating_point() else v for k, v in loaded.items()}
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        raise ValueError(f"{path} is not a whole file of tensors only, so it is not read.") from error


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a file of safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load a state dict of which every key and every shape must match.

    Raises ValueError naming what is missing, what is surplus and what has another shape.
    """
    compare({k: tuple(v.shape) for k, v in model.state_dict().items()}, tensors, source)
    model.load_state_dict(tensors)


def compare(wanted: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], source: Path) -> None:
    """Raise ValueError naming the tensors that are missing, surplus or of another shape than wanted."""
    missing = sorted(wanted.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - wanted.keys())
    shapes = sorted(k for k in wanted.keys() & tensors.keys() if wanted[k] != tuple(tensors[k].shape))
    if missing or surplus or shapes:
        found = {"missing": missing, "surplus": surplus, "of another shape": shapes}
        lists = "; ".join(f"{what}: {_some(keys)}" for what, keys in found.items() if keys)
        raise ValueError(f"The weights in {source} are not those of this model ({lists}).")


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def autocast(like: Tensor, dtype: torch.dtype) -> torch.autocast:
    """Compute in a dtype on the device of a tensor; float32 leaves everything as it is."""
    return torch.autocast(like.device.type, dtype, enabled=dtype is not torch.float32)
