"""What does each trick of the fast path give, alone and taken away from all the others?

    python benchmarks/tricks.py --copies 8

FuseDream on BigGAN at 256 pixels and ViT-B/32, random weights. Every trick is undone in turn: *alone* is the
path with all others undone against the path with all undone, *taken away* the path without it against the
full one; both are times as fast. Seconds of the clock, so the machine should be idle.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

import open_clip
import torch
import torch.nn.functional as F
from real_shapes import generator, seconds
from torch import Tensor, nn
from torch.nn.utils import remove_spectral_norm, spectral_norm

import fusedream_nb as fd
from fusedream_nb.method import scores
from fusedream_nb.method.budgets import BUDGETS
from fusedream_nb.method.latents import top_k
from fusedream_nb.models import Models, biggan
from fusedream_nb.models.encoders import Clip

PROMPT = "a photo of a blue dog"


@dataclass
class Path:
    """What is timed, and what cannot be patched: the start's batch, and whether texts are kept."""

    models: Models
    batch: int | None = None
    forget: bool = False


def _norm(self: biggan.Affine, x: Tensor, condition: Tensor) -> Tensor:
    scale, offset = self.linear(condition)[:, :, None, None].chunk(2, 1)
    zeros = x.new_zeros(x.shape[1])
    return F.batch_norm(x, zeros, zeros + 1, eps=1e-4) * scale + offset


def _attention(self: biggan.Attention, x: Tensor) -> Tensor:
    value, key = (F.max_pool2d(part(x), 2).flatten(2) for part in (self.value, self.key))
    weights = torch.bmm(self.query(x).flatten(2).mT, key).softmax(-1)
    return x + self.out(torch.bmm(value, weights.mT).unflatten(2, x.shape[2:]))


def _block(self: biggan.Block, x: Tensor, condition: Tensor) -> Tensor:
    def double(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2)

    change = self.conv1(double(torch.relu(self.norm1(x, condition))))
    return self.conv2(torch.relu(self.norm2(change, condition))) + self.shortcut(double(x))


@contextmanager
def _norms(path: Path) -> Iterator[None]:
    network = path.models.generator.network  # type: ignore[attr-defined]
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        spectral_norm(layer).eval()
        matrix = layer.weight_orig.flatten(1)
        for _ in range(3):  # or the norm is any number
            layer.weight_v.copy_(F.normalize(matrix.T @ layer.weight_u, dim=0))
            layer.weight_u.copy_(F.normalize(matrix @ layer.weight_v, dim=0))
        layer.weight_orig.mul_(layer.weight_u @ matrix @ layer.weight_v)  # the same weight as before
    yield
    for layer in layers:
        remove_spectral_norm(layer)
    network.requires_grad_(False)


@contextmanager
def _layout(path: Path) -> Iterator[None]:
    network = path.models.generator.network  # type: ignore[attr-defined]
    both = network, path.models.clip.model
    for part in both:
        part.to(memory_format=torch.contiguous_format)
    hook = network.blocks[0].register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
    yield
    hook.remove()
    for part in both:
        part.to(memory_format=torch.channels_last)


@contextmanager
def _resolution(path: Path) -> Iterator[None]:
    small = scores.augment.augment

    def large(image: Tensor, numbers: scores.Draw, size: int) -> Tensor:
        return F.interpolate(small(image, numbers), (size, size), mode="bilinear")

    with patch.object(scores.augment, "augment", large):
        yield


@contextmanager
def _set(path: Path, name: str, value: object) -> Iterator[None]:
    with patch.object(path, name, value):
        yield


UNDO: dict[str, Callable[[Path], object]] = {
    "spectral norms folded": _norms,
    "statistics and gains folded": lambda _: patch.object(biggan.Affine, "forward", _norm),
    "attention by scaled_dot_product_attention": lambda _: patch.object(
        biggan.Attention, "forward", _attention
    ),
    "shortcuts before the doubling": lambda _: patch.object(biggan.Block, "forward", _block),
    "channels_last": _layout,
    "augmentation at CLIP's resolution": _resolution,
    "texts encoded once": lambda path: _set(path, "forget", True),
    "a start in batches that fit the cache": lambda path: _set(path, "batch", 10),
}


def timed(path: Path, undone: list[str], given: argparse.Namespace) -> tuple[float, float]:
    """Return seconds of a step, and of a sample of the start, with some tricks undone."""
    with ExitStack() as stack:
        for name in undone:
            stack.enter_context(UNDO[name](path))  # type: ignore[arg-type]
        models, device = path.models, path.models.device
        sizes = replace(
            BUDGETS["paper"], M=5, copies=given.copies, judged_copies=1, start_copies=1, steps=10**9
        )
        run = fd.fusedream(PROMPT, models, budget=sizes)
        score, rng = fd.CLIPScore(models.clip, PROMPT), torch.Generator().manual_seed(0)

        def read() -> None:
            if path.forget:
                models.clip._texts.clear()
                models.clip.encode_text(PROMPT)

        def step() -> None:
            read()
            next(run)

        def start() -> None:
            read()
            top_k(models.generator, score, 10, 5, rng, batch=path.batch)

        step()
        return seconds(step, device, 3, given.seconds), seconds(start, device, 2, given.seconds) / 10


def main() -> None:
    """Time every path, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each number, at least")
    given = parser.parse_args()
    torch.manual_seed(0)
    network = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None)
    clip = Clip(network, open_clip.get_tokenizer("ViT-B-32-quickgelu"), name="ViT-B/32, random")
    shape = generator("biggan-256").to(torch.device("cpu"))  # type: ignore[attr-defined]
    stickers = fd.load("stickers", device="cpu")
    path = Path(replace(stickers, generator=shape, clip=clip, judge=clip, name="random", world=""))
    full, plain = timed(path, [], given), timed(path, list(UNDO), given)
    print("| | step | a sample of the start |\n|---|---|---|")
    for name, (step, start) in {"all undone": plain, "all tricks": full}.items():
        print(f"| {name} | {step:.2f} s | {start:.2f} s |")
    print()
    print("| times as fast | step, alone | taken away | start, alone | taken away |\n|---|---|---|---|---|")
    for name in UNDO:
        alone = timed(path, [other for other in UNDO if other != name], given)
        without = timed(path, [name], given)
        cells = [(plain[i] / alone[i], without[i] / full[i]) for i in range(2)]
        print(
            f"| {name} | " + " | ".join(f"{one:.2f} | {other:.2f}" for one, other in cells) + " |", flush=True
        )


if __name__ == "__main__":
    main()
