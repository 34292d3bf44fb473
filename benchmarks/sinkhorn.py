"""What share of a step does transport take?

    python benchmarks/sinkhorn.py --device cpu --prompts 2 --patches 64

Times the parts of a step on the sticker models, or on any that ``fd.load`` knows: the whole step, the
Sinkhorn iteration, the tangents. Then the ways to get the plan, on the costs of fresh patches of a picture
that is being climbed: POT's batched iteration, as this package uses it; the same iteration in plain torch,
from the last step's potentials; and POT's other solver, one picture at a time.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from statistics import median

import ot
import torch
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method.fusedream import climb
from fusedream_nb.method.latents import Plain
from fusedream_nb.method.ot import (
    ITERATIONS,
    TOLERANCE,
    cost_scale,
    marginal_weights,
    pull_back,
    push_forward,
    transport_loss,
)
from fusedream_nb.method.scores import PatchScore
from fusedream_nb.method.views import Cutouts
from fusedream_nb.models import Models

PROMPTS = (
    "a photo of a red car", "a photo of a blue dog", "a castle in the sky",
    "a photo of a cat", "a green frog", "a yellow boat",
)  # fmt: skip


def milliseconds(function: Callable[[], object], device: torch.device, times: int = 15) -> float:
    """Return the median time of a function, the device's queue included."""
    measured = []
    for _ in range(times + 2):
        began = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        measured.append(1000 * (time.perf_counter() - began))
    return median(measured[2:])


def warm(
    costs: Tensor, epsilon: Tensor, b: Tensor, potential: Tensor, limit: int = 1000
) -> tuple[Tensor, int]:
    """Run the log-domain iteration from given potentials [m]; return the new ones and how often."""
    log_b = b.to(costs).log()
    for iteration in range(ITERATIONS):
        lack = log_b - (log_b + potential - costs / epsilon).softmax(-1).mean(-2).log()
        if iteration % 5 == 4 and bool((lack.abs() <= TOLERANCE).all()):
            break
        potential = potential + lack
    return potential, iteration + 1


def seen_costs(models: Models, score: PatchScore, steps: int) -> list[Tensor]:
    """Return the costs [patches, m] of each step of a short climb."""
    start = Plain(models.generator.sample(1, torch.Generator().manual_seed(0)))
    found = []
    run = climb(models.generator, score, start, torch.Generator().manual_seed(1), steps=steps, lr=0.05)
    for _ in run:
        assert score.seen is not None
        found.append(score.seen.costs[0])
    return found


def solvers(costs: Tensor, last: Tensor, epsilon: float, b: Tensor) -> dict[str, Callable[[], object]]:
    """Return the ways to get the plan of costs [n, m], by name."""
    reg = float(epsilon * cost_scale(costs))
    like, plain = b.to(costs), costs.double().cpu().numpy()
    potential, _ = warm(last, epsilon * cost_scale(last), b, torch.zeros_like(like))
    options = {"reg": reg, "tol": 1e-6}
    return {
        "ours": lambda: transport_loss(costs, epsilon * cost_scale(costs), b),
        "ours_warm": lambda: warm(costs, epsilon * cost_scale(costs), b, potential),
        "pot_torch": lambda: ot.solve(costs, b=like, grad="envelope", **options),
        "pot_numpy": lambda: ot.solve(plain, b=b.numpy(), **options),
    }


def step_parts(models: Models, score: PatchScore, times: int) -> dict[str, float]:
    """Return milliseconds of a whole step, forwards and backwards, and of its tangents."""
    latent = models.generator.sample(1, torch.Generator().manual_seed(0))
    leaf = latent.map(lambda t: t.clone().requires_grad_())
    rng = torch.Generator().manual_seed(1)

    def step() -> None:
        score(models.generator.decode(leaf), rng).sum().backward()

    u = torch.nn.functional.normalize(torch.randn(1, score.cutouts.count, models.clip.dim), dim=-1).to(leaf.z)
    costs = score.distance(u, score.vectors)
    plan = transport_loss(costs, score.epsilon * cost_scale(costs), score.weights)[1].plan

    def tangents() -> None:
        push_forward(score.distance, u, score.vectors, pull_back(score.distance, u, score.vectors, plan))

    return {
        "step_ms": milliseconds(step, models.device, times),
        "tangents_ms": milliseconds(tangents, models.device),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="stickers")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--distance", default="cosine")
    parser.add_argument("--times", type=int, default=8)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    models, prompts = fd.load(given.model, device=given.device), PROMPTS[: given.prompts]
    kind = {"epsilon": given.epsilon, "distance": given.distance}
    score = PatchScore(models.clip, prompts, Cutouts(given.patches), **kind)
    parts = step_parts(models, score, given.times)
    result: dict[str, object] = {**vars(given), "device": str(models.device), **parts}
    costs, b = seen_costs(models, score, 3), marginal_weights(None, len(prompts))
    ways = solvers(costs[-1], costs[-2], given.epsilon, b)
    times = {name: milliseconds(way, models.device) for name, way in ways.items()}
    scale, zero = [given.epsilon * cost_scale(c) for c in costs[-2:]], torch.zeros_like(b.to(costs[0]))
    before, _ = warm(costs[-2], scale[0], b, zero)
    result["iterations"] = {
        "cold": warm(costs[-1], scale[1], b, zero)[1],
        "warm": warm(costs[-1], scale[1], b, before)[1],
    }
    result["plan_ms"] = {name: round(value, 2) for name, value in times.items()}
    result["share_of_a_step"] = {name: round(value / parts["step_ms"], 4) for name, value in times.items()}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
