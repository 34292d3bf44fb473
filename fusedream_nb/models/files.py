"""Files of weights and configurations, read whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
Renamings = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
_IRRELEVANT = {"name", "at_once", "class_names"}  # to what is drawn or read
_LIGHTNING = {"__module__": "pytorch_lightning.callbacks.model_checkpoint"}


class WrongWeights(ValueError):
    """The tensors of a file are not those of the model that its configuration describes."""


def read_config(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or raise FileNotFoundError or ValueError."""
    if not path.exists():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; put it there, beside the weights.")
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); {_AGAIN}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} should hold one JSON object, not a {type(value).__name__}; {_AGAIN}")
    return value


@contextmanager
def described_by(path: Path, what: str) -> Iterator[None]:
    """Raise ValueError, naming a file and what it should describe, for what goes wrong with it."""
    try:
        yield
    except (WrongWeights, OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # a wrong number may make a network's own code say anything
        raise ValueError(f"{path} does not describe {what}: {error!r}; {_AGAIN}") from error


_AGAIN = "replace it by the file as it was published (`fusedream-nb models` lists sources)."


def read_tensors(path: Path, names: Sequence[str]) -> Tensors:
    """Return :func:`read_file` of a file, or of the first of some names in a folder; FileNotFoundError."""
    if path.is_file():
        return read_file(path)
    for name in names:
        if (path / name).exists():
            return read_file(path / name)
    raise FileNotFoundError(f"{path} holds no weights; put {' or '.join(names)} there.")


def read_file(path: Path) -> Tensors:
    """Return the tensors, as float32, of a safetensors or torch file, or of a checkpoint's ``state_dict``.

    Raises ValueError for a file that is broken, that would run code, or that holds something else.
    """
    try:
        loaded = load_tensors(path)
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes the readers say anything at all
        raise ValueError(
            f"{path} is not a whole file of tensors only, so it is not read; {_AGAIN}"
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    rows = state.items() if isinstance(state, Mapping) else ()
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in rows if isinstance(v, Tensor)}
    if not tensors:
        names = [str(key) for key in loaded] if isinstance(loaded, Mapping) else []
        found = f"the keys {_some(names)}" if names else "no names"
        raise ValueError(
            f"{path} should hold tensors by their names, but has {found} at its top; save the state dict "
            "alone: torch.save(model.state_dict(), path)."
        )
    return tensors


def load_tensors(path: Path, suffix: str = "") -> Any:  # noqa: ANN401  whatever was saved
    """Return what a file of safetensors or of torch holds; nothing in it is run."""
    if (suffix or path.suffix) == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    # Lightning of taming's time stored the class of its callback, of which the name alone is needed.
    with torch.serialization.safe_globals([type("ModelCheckpoint", (), _LIGHTNING)]):
        return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a file of safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)


def rename(key: str, renamings: Renamings) -> str:
    """Return a tensor's name after each of some regular expressions, in order, is replaced in it."""
    for pattern, replacement in renamings:
        key = re.sub(pattern, replacement, key)
    return key


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load a state dict, or raise ValueError naming the keys and shapes that do not match.

    A model on the ``meta`` device takes the tensors themselves.
    """
    mine = model.state_dict()
    compare({k: tuple(v.shape) for k, v in mine.items()}, tensors, source)
    model.load_state_dict(tensors, assign=any(v.is_meta for v in mine.values()))


def compare(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], source: Path) -> None:
    """Raise WrongWeights naming the tensors that are missing, surplus or of another shape than expected."""
    both = expected.keys() & tensors.keys()
    found = {
        "missing": sorted(expected.keys() - both),
        "surplus": sorted(tensors.keys() - both),
        "of another shape": sorted(k for k in both if expected[k] != tuple(tensors[k].shape)),
    }
    lists = "; ".join(f"{what}: {_some(keys)}" for what, keys in found.items() if keys)
    if lists:
        raise WrongWeights(f"The weights in {source} are not those of this model ({lists}).")


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def fingerprint(part: object) -> str | None:
    """Return a hash of all that a generator's or an encoder's answers depend on: class, weights, numbers.

    None for a class that is not this package's, of which that is not known.
    """
    kind = type(part)
    if kind.__module__.partition(".")[0] != __name__.partition(".")[0]:
        return None
    digest = hashlib.blake2b(f"{kind.__module__}.{kind.__qualname__}".encode(), digest_size=16)
    for name, value in sorted(vars(part).items()):
        if isinstance(value, nn.Module):
            digest.update(f"{name} {value!r}".encode())
            for key, tensor in value.state_dict().items():
                digest.update(key.encode() + _bytes(tensor))
        elif isinstance(value, Tensor):
            digest.update(name.encode() + _bytes(value))
        elif isinstance(value, int | float | str | tuple | torch.dtype) and name not in _IRRELEVANT:
            digest.update(f"{name} {value!r}".encode())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()
    return f"{plain.dtype} {list(plain.shape)}".encode() + plain.view(-1).view(torch.uint8).numpy().tobytes()
