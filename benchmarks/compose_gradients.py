"""Composition's two gradients: taken one after the other, or by one pass back through the generator.

python benchmarks/compose_gradients.py --placements 9 --copies 12

Seconds of processor time on the CPU, where other programs may run; of the clock on a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method import views
from fusedream_nb.method.compose import fused
from fusedream_nb.method.latents import OverParameterised
from fusedream_nb.method.placement import PLACEMENTS
from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent


class Scene:
    """One step of a composition at n placements, up to its two gradients."""

    def __init__(self, models: Models, n: int, copies: int, k: int) -> None:
        self.models, self.n = models, n
        self.rng = torch.Generator().manual_seed(0)
        self.placements = PLACEMENTS[:n]
        fixed = views.sample(1, copies, self.rng)  # or the three ways would not agree
        self.score = fd.AugCLIP(models.clip, "an elephant on top of a house", copies, fixed=fixed)
        basis = models.generator.sample(2 * n * k, self.rng).map(lambda t: t.view(2 * n, k, -1))
        self.start = OverParameterised.start(basis)  # the foregrounds, then the backgrounds
        self.parameters = [p.requires_grad_() for p in self.start.parameters()]

    def values(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return ℓ and s [n] of the pictures [2n, 3, h, w]."""
        parts = pictures.chunk(2)
        _, score, loss = fused(*parts, self.placements, self.score, self.models.perceptual, self.rng)
        return loss, score

    def halves(self, gradients: Tensor) -> Tensor:
        """Return gradients [2n, …] of all parts as [n, d] of each run."""
        return torch.cat([part.flatten(1) for part in gradients.chunk(2)], 1)


def separately(scene: Scene) -> tuple[Tensor, Tensor]:
    """Go back through everything twice."""
    loss, score = scene.values(scene.models.generator.decode(scene.start.combine()))
    found = []
    for value, again in ((loss, True), (score, False)):
        parts = torch.autograd.grad(value.sum(), scene.parameters, retain_graph=again)
        found.append(torch.cat([scene.halves(part) for part in parts], 1))
    return found[0], found[1]


def _at_pictures(scene: Scene, pictures: Tensor) -> Tensor:
    """Return the two gradients [2, 2n, 3, h, w] at the pictures."""
    leaf = pictures.detach().requires_grad_()
    return torch.stack([torch.autograd.grad(v.sum(), leaf, retain_graph=True)[0] for v in scene.values(leaf)])


def batched(scene: Scene) -> tuple[Tensor, Tensor]:
    """Go back through the generator once, with torch's batched vector-Jacobian product."""
    pictures = scene.models.generator.decode(scene.start.combine())
    both = _at_pictures(scene, pictures)
    parts = torch.autograd.grad(pictures, scene.parameters, both, is_grads_batched=True)
    return tuple(torch.cat([scene.halves(part[i]) for part in parts], 1) for i in (0, 1))


def doubled(scene: Scene) -> tuple[Tensor, Tensor]:
    """Draw each picture twice, and go back through the generator once with one gradient a copy."""
    latent = scene.start.combine()
    twice = Latent.cat([latent, latent]).map(lambda t: t.detach().requires_grad_())
    pictures = scene.models.generator.decode(twice)
    both = _at_pictures(scene, pictures[: 2 * scene.n])
    codes = torch.autograd.grad(pictures, twice.tensors(), both.flatten(0, 1))
    found = []
    for i in (0, 1):
        own = [code.chunk(2)[i] for code in codes]
        parts = torch.autograd.grad(latent.tensors(), scene.parameters, own, retain_graph=True)
        found.append(torch.cat([scene.halves(part) for part in parts], 1))
    return found[0], found[1]


def seconds(function: Callable[[Scene], object], scene: Scene, repeats: int) -> float:
    """Return the best time of some calls, after one that does not count."""
    on_gpu = scene.models.device.type == "cuda"
    clock, times = time.monotonic if on_gpu else time.process_time, []
    for _ in range(repeats + 1):
        began = clock()
        function(scene)
        if on_gpu:
            torch.cuda.synchronize()
        times.append(clock() - began)
    return min(times[1:])


def main() -> None:
    """Check that all ways give the same gradients, time them and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--placements", type=int, default=9, choices=range(1, 10), metavar="1…9")
    parser.add_argument("--copies", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    scene = Scene(fd.load(given.model), given.placements, given.copies, k=5)
    ways = (separately, batched, doubled)
    exact = separately(scene)
    for way in ways[1:]:
        for mine, reference in zip(way(scene), exact, strict=True):
            torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-3 * float(reference.abs().max()))
    times = {way.__name__: seconds(way, scene, given.repeats) for way in ways}
    told = ", ".join(f"{name} {value:.3f} s" for name, value in times.items())
    print(f"{given.placements} placements, {given.copies} copies on {scene.models.device}: {told}")


if __name__ == "__main__":
    main()
