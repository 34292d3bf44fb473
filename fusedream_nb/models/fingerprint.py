"""What tells one network from another: a hash of all that its answers depend on."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

_IRRELEVANT = {"name", "at_once", "class_names"}  # to what is drawn or read


def fingerprint(part: object) -> str | None:
    """Return a hash of a generator's or an encoder's class, weights and numbers.

    None for a class that is not this package's: what its answers depend on is not known.
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
