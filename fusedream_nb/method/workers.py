"""Small batches side by side: on a CPU, a thread for each is faster than all threads for one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Found = TypeVar("Found")


def workers(device: torch.device) -> int:
    """Return how many batches go side by side: as many as PyTorch has threads on a CPU, one elsewhere."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def side_by_side(act: Callable[[Part], Found], parts: Iterable[Part], device: torch.device) -> list[Found]:
    """Return what acting on every part gives, each in a thread with one core, as many as there are workers.

    The parts must not touch each other's randomness or tensors; what they compute is then the same in
    any number of threads. Raises what an act raises, after those under way have ended.
    """
    count = workers(device)
    if count == 1:
        return [act(part) for part in parts]
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(act, parts))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(count)  # what the pool's threads set is what later ones begin with
