"""What does each trick of the fast path give, alone and taken away from all the others?

    python benchmarks/tricks.py --copies 8

FuseDream on BigGAN at 256 pixels and ViT-B/32, random weights. *Alone* is the path with all other tricks
undone against the path with all undone, *taken away* the path without it against the full one; both are times
as fast. The four paths of a trick take turns, and the median of the turns' ratios is told, because a
machine's speed drifts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from unittest.mock import patch

import torch
import torch.nn.functional as F
from real_shapes import clip, generator
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

import fusedream_nb as fd
from fusedream_nb.method import views
from fusedream_nb.method.budgets import BUDGETS
from fusedream_nb.method.latents import top_k
from fusedream_nb.models import Models, biggan
from fusedream_nb.models.compute import FoldedDoublingConv, MatrixConv, double

PROMPT = "a photo of a blue dog"
SAMPLES = 4  # of a start


def _norm(self: biggan.Affine, x: Tensor, condition: Tensor) -> Tensor:
    scale, offset = self.linear(condition)[:, :, None, None].chunk(2, 1)
    zeros = x.new_zeros(x.shape[1])
    return F.batch_norm(x, zeros, zeros + 1, eps=1e-4) * scale + offset


def _attention(self: biggan.Attention, x: Tensor) -> Tensor:
    value, key = (F.max_pool2d(part(x), 2).flatten(2) for part in (self.value, self.key))
    weights = torch.bmm(self.query(x).flatten(2).mT, key).softmax(-1)
    return x + self.out(torch.bmm(value, weights.mT).unflatten(2, x.shape[2:]))


def _block(self: biggan.Block, x: Tensor, condition: Tensor) -> Tensor:
    change = self.conv1(torch.relu(self.norm1(x, condition)))
    return self.conv2(torch.relu(self.norm2(change, condition))) + self.shortcut(double(x))


def _norms(models: Models) -> None:
    for layer in models.generator.network.modules():  # type: ignore[attr-defined]
        name = "matrix" if isinstance(layer, MatrixConv) else "weight"
        if not isinstance(layer, nn.Conv2d | nn.Linear | FoldedDoublingConv | MatrixConv):
            continue
        across = int(isinstance(layer, FoldedDoublingConv))
        spectral_norm(layer, name, dim=across).eval()
        weight, u, v = (getattr(layer, name + part) for part in ("_orig", "_u", "_v"))
        matrix = weight.transpose(0, across).flatten(1)
        for _ in range(3):  # or the norm is any number
            v.copy_(F.normalize(matrix.T @ u, dim=0))
            u.copy_(F.normalize(matrix @ v, dim=0))
        weight.mul_(u @ matrix @ v)  # the same weight as before


def _layout(models: Models) -> None:
    network = models.generator.network  # type: ignore[attr-defined]
    for part in (network, models.clip.model):
        part.to(memory_format=torch.contiguous_format)
    network.blocks[0].register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))


@contextmanager
def _resolution() -> Iterator[None]:
    small = views.augment

    def large(image: Tensor, numbers: views.Copies, size: int) -> Tensor:
        return F.interpolate(small(image, numbers), (size, size), mode="bilinear")

    with patch.object(views, "augment", large):
        yield


BUILT: dict[str, Callable[[Models], None]] = {  # what is undone when the networks are made
    "spectral norms folded": _norms,
    "channels_last": _layout,
}
FOLDED, VIT = "doublings folded into convolutions", "ViT: products, and only what is read"
PATCHED: dict[str, Callable[[], AbstractContextManager[object]]] = {  # what is undone while they run
    "statistics and gains folded": lambda: patch.object(biggan.Affine, "forward", _norm),
    "attention by scaled_dot_product_attention": lambda: patch.object(
        biggan.Attention, "forward", _attention
    ),
    "shortcuts before the doubling": lambda: patch.object(biggan.Block, "forward", _block),
    "augmentation at CLIP's resolution": _resolution,
}
TEXTS, BATCHES = "texts encoded once", "a start in batches that fit the cache"
TRICKS = (*BUILT, FOLDED, VIT, *PATCHED, TEXTS, BATCHES)


class Path:
    """FuseDream with some tricks undone, timed step by step."""

    def __init__(self, stickers: Models, undone: Sequence[str], copies: int) -> None:
        self.undone = undone
        torch.manual_seed(0)
        with patch.object(biggan, "fold", lambda _: None) if FOLDED in undone else nullcontext():
            shape = generator("biggan-256").to(torch.device("cpu"))  # type: ignore[attr-defined]
        encoder = clip(folded=VIT not in undone)
        self.models = replace(stickers, generator=shape, clip=encoder, judge=encoder, name="random", world="")
        for name in set(BUILT) & set(undone):
            BUILT[name](self.models)
        sizes = replace(BUDGETS["paper"], M=5, copies=copies, judged_copies=1, start_copies=1, steps=10**9)
        self.run = fd.fusedream(PROMPT, self.models, budget=sizes)
        self.score = fd.CLIPScore(encoder, PROMPT)
        self.times()  # warms up

    def _read(self) -> None:
        if TEXTS in self.undone:
            self.models.clip._texts.clear()
            self.models.clip.encode_text(PROMPT)

    def times(self) -> tuple[float, float]:
        """Return the seconds of one step, and of one sample of a start."""
        with ExitStack() as stack:
            for name in set(PATCHED) & set(self.undone):
                stack.enter_context(PATCHED[name]())
            began = time.perf_counter()
            self._read()
            next(self.run)
            middle = time.perf_counter()
            self._read()
            batch = SAMPLES if BATCHES in self.undone else None
            rng = torch.Generator().manual_seed(0)
            top_k(self.models.generator, self.score, SAMPLES, 1, rng, batch=batch)
            return middle - began, (time.perf_counter() - middle) / SAMPLES


def ratios(slow: list[tuple[float, float]], fast: list[tuple[float, float]]) -> str:
    """Return how many times as fast a step and a sample of the start are, the median over the turns."""
    pairs = [[a / b for a, b in zip(x, y, strict=True)] for x, y in zip(slow, fast, strict=True)]
    return " | ".join(f"{statistics.median(column):.2f}" for column in zip(*pairs, strict=True))


def main() -> None:
    """Time every path, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    stickers = fd.load("stickers", device="cpu")
    full, plain = (Path(stickers, undone, given.copies) for undone in ((), TRICKS))
    print("| times as fast | step, alone | start, alone | step, taken away | start, taken away |")
    print("|---|---|---|---|---|")
    for name in TRICKS:
        others = [other for other in TRICKS if other != name]
        paths = [plain, Path(stickers, others, given.copies), Path(stickers, [name], given.copies), full]
        turns = [[path.times() for path in paths] for _ in range(given.turns)]
        bare, alone, without, whole = (list(column) for column in zip(*turns, strict=True))
        print(f"| {name} | {ratios(bare, alone)} | {ratios(without, whole)} |", flush=True)


if __name__ == "__main__":
    main()
