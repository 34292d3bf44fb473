"""The same run on many workers, by Ray: on this machine, or on a cluster that is there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fusedream_nb.evaluation.evaluate import Block, Plan, make, todo
from fusedream_nb.evaluation.store import Store, absolute

STORE_BYTES = 100_000_000  # of a local cluster's object store: records do not go through it
TRIES = 5  # of a block whose writing fails


class Worker:
    """One process with its own models, loaded once, that makes blocks and writes them itself."""

    def __init__(self, plan: Plan, address: str) -> None:
        from fusedream_nb.models import load

        self.plan, self.store = plan, Store(address)
        self.models = load(plan.model, device=plan.device)

    def make(self, block: Block) -> int:
        """Make a block; return how many records it wrote."""
        return make(block, self.plan, self.models, self.store)


def run_on_ray(plan: Plan, out: str, address: str, workers: int | None = None) -> Iterator[tuple[int, int]]:
    """Make what is missing on a cluster; yield how many pictures are made, and of how many.

    ``address`` is a cluster's, or "local" to start one here; ``workers`` None takes one for each GPU, or
    each core where the plan's device is the CPU. A worker that dies is started again and its block with it.
    ``out`` is a path that all workers see, or an fsspec address.
    Raises ValueError for a folder of another run and ConnectionError for a cluster that is not there.
    """
    out = absolute(out)
    store = Store(out)
    store.settle(plan.settings())
    store.sweep()
    blocks = todo(plan, store)
    made, total = 0, sum(len(block.captions) for block in blocks)
    yield made, total
    if not blocks:
        return
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
        kind: Any = ray.remote(Worker).options(
            num_cpus=1, num_gpus=int(gpu), max_restarts=-1, max_task_retries=-1
        )
        crew = [kind.remote(replace(plan, captions=[]), out) for _ in range(number)]
        for count in ActorPool(crew).map_unordered(_send, blocks):
            made += count
            yield made, total
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
