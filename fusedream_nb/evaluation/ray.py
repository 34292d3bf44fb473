"""The same run on many workers, by Ray: on this machine, or on a cluster that is there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fusedream_nb.evaluation.folder import Folder
from fusedream_nb.evaluation.table import Block, Plan, make

STORE_BYTES = 100_000_000  # of a local cluster's object store: records do not go through it
TRIES = 5  # of a block whose writing fails


class Worker:
    """One process with its own models, loaded once, that makes blocks and writes them itself."""

    def __init__(self, plan: Plan, address: str) -> None:
        from fusedream_nb.models import load

        self.plan, self.folder = plan, Folder(address)
        self.models = load(plan.model, device=plan.device)

    def make(self, block: Block) -> int:
        """Make a block; return how many records it wrote."""
        return make(block, self.plan, self.folder, self.models)


def on_ray(
    blocks: list[Block], plan: Plan, folder: Folder, address: str, workers: int | None = None
) -> Iterator[int]:
    """Make blocks on a cluster; a worker that dies is started again, and its block with it.

    Args:
        blocks: what is to be made.
        plan: what they are blocks of.
        folder: at a path that all workers see, or an fsspec address.
        address: a cluster's, or "local" to start one here.
        workers: how many; None takes one for each GPU, or each core where the plan's device is the CPU.

    Raises ConnectionError for a cluster that is not there, ValueError for one without a GPU or core to spare.
    """
    import ray
    from ray.util import ActorPool

    gpu = plan.device.startswith("cuda")
    with warnings.catch_warnings(action="ignore"):
        _start(address, workers)
    try:
        there = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
        number = min(workers or there, len(blocks))
        if number < 1:
            raise ValueError(
                f"The cluster has no {'GPU' if gpu else 'core'} to spare; take another --device."
            )
        actor: Any = ray.remote(Worker).options(
            num_cpus=1, num_gpus=int(gpu), max_restarts=-1, max_task_retries=-1
        )
        crew = [actor.remote(replace(plan, captions=[]), folder.address) for _ in range(number)]
        yield from ActorPool(crew).map_unordered(_send, blocks)
    finally:
        ray.shutdown()


def _send(worker: Any, block: Block) -> Any:  # noqa: ANN401  Ray's handles have no type of their own
    return worker.make.options(retry_exceptions=[OSError], max_task_retries=TRIES).remote(block)


def _start(address: str, workers: int | None) -> None:
    import ray

    if address != "local":
        ray.init(address=address, log_to_driver=False)
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a worker without GPUs keeps its view
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, object_store_memory=STORE_BYTES)
