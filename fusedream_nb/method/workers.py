"""Small batches side by side: on a CPU, a thread for each is faster than all threads for one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Found = TypeVar("Found")


def workers(device: torch.device, most: int) -> int:
    """Return how many batches go side by side: one for each of PyTorch's threads on a CPU, one elsewhere.

    ``most`` is how many may be in memory together.
    """
    return min(most, torch.get_num_threads()) if device.type == "cpu" else 1


def side_by_side(act: Callable[[Part], Found], parts: Iterable[Part], count: int) -> list[Found]:
    """Return what acting on every part gives, each in a thread with one core, ``count`` at a time.

    The parts must not touch each other's randomness or tensors; what they compute is then the same in
    any number of threads. Raises what an act raises, after those under way have ended.
    """
    if count == 1:
        return [act(part) for part in parts]
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(act, parts))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # what the pool's threads set is what later ones begin with
