"""Seconds, memory and arithmetic at the papers' shapes, random weights, beside a plain loop in the same run.

    python benchmarks/real_shapes.py biggan-256 biggan-512 biggan-deep-256 vqgan-480 --json

A start is counted by the sample, a step by the picture. The share of the machine is that of its own measured
rate of matrix products, in the precision that the networks compute in. BigGAN-deep and VQGAN have no plain
loop beside them.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import VQModel
from plain_loop import PlainBigGAN, PlainLoop
from pytorch_pretrained_biggan.config import BigGANConfig
from pytorch_pretrained_biggan.model import BigGAN as PublishedDeep
from torch.utils.flop_counter import FlopCounterMode

import fusedream_nb as fd
from fusedream_nb.method.budgets import BUDGETS
from fusedream_nb.method.latents import top_k
from fusedream_nb.models import Models, resolve_device
from fusedream_nb.models.biggan import SHAPES, BigGAN, BigGANDeep, Network
from fusedream_nb.models.clip_network import load_network
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.generators import Generator
from fusedream_nb.models.vqgan import F16, VQGAN, fold

DEEP = (  # of biggan-deep-256: doubled or not, channels before and after
    (0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8), (1, 8, 8), (0, 8, 8),
    (1, 8, 4), (0, 4, 4), (1, 4, 2), (0, 2, 2), (1, 2, 1),
)  # fmt: skip
NAMES = ("biggan-256", "biggan-512", "biggan-deep-256", "vqgan-480")


def generator(name: str) -> Generator:
    """Return a generator of a real shape and random weights."""
    if name.startswith("biggan-deep"):
        layers = [[bool(up), before, after] for up, before, after in DEEP]
        config = vars(BigGANConfig(output_dim=256, layers=layers, attention_layer_position=8))
        state = PublishedDeep(BigGANConfig.from_dict(config)).state_dict()
        norm = "generator.bn"  # the package leaves its weights unset
        state |= {f"{norm}.weight": torch.ones(128), f"{norm}.bias": torch.zeros(128)}
        return BigGANDeep(config, state)
    if name.startswith("biggan"):
        return BigGAN(Network(SHAPES[int(name.rpartition("-")[2])]), torch.randn(1000, 128) * 0.05)
    return VQGAN(fold(VQModel(**F16, num_vq_embeddings=1024)), canvas=(480, 480))


def clip(*, folded: bool = True) -> Clip:
    """Return ViT-B/32 with random weights: ours, or open_clip's own network."""
    name = "ViT-B-32-quickgelu"
    network = open_clip.create_model(name, pretrained=None)
    ours = (
        load_network(open_clip.get_model_config(name), network.state_dict(), Path(name)) if folded else None
    )
    return Clip(ours or network, open_clip.get_tokenizer(name), name="ViT-B/32, random")


def seconds(act: Callable[[], object], device: torch.device, least: int, most: float) -> float:
    """Return the median seconds of an act: at least so many times, then until so many seconds are over."""
    taken: list[float] = []
    while len(taken) < least + 1 or sum(taken) < most:
        began = time.perf_counter()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return sorted(taken[1:])[(len(taken) - 1) // 2]  # the first one warms up


def rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the machine's rate of matrix products, FLOP a second."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, 5, 2.0)


def peak(device: torch.device) -> float:
    """Return the peak of memory so far, GB: the device's, or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(name: str, models: Models, given: argparse.Namespace) -> dict[str, Any]:
    """Return what one shape costs."""
    device, row = models.device, {"shape": name}
    sizes = replace(BUDGETS["paper"], M=5, copies=given.copies, judged_copies=1, start_copies=1, steps=10**9)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    run: Iterator[Any]
    if name.startswith("vqgan"):
        run = fd.transport(["a castle", "a fox"], models, budget=sizes)
    else:
        run = fd.fusedream("a photo of a blue dog", models, budget=sizes)
        score = fd.CLIPScore(models.clip, "a photo of a blue dog")
        rng, n = torch.Generator().manual_seed(0), given.samples
        start = seconds(lambda: top_k(models.generator, score, n, 5, rng), device, 1, given.seconds)
        row["start_s_a_sample"] = start / n
    next(run)
    with FlopCounterMode(display=False) as counter:
        next(run)
    row["step_s"] = seconds(run.__next__, device, 3, given.seconds)
    row["step_tflop"] = counter.get_total_flops() / 1e12
    row["share_of_the_machine"] = counter.get_total_flops() / row["step_s"] / rate(device, models.dtype)
    row["peak_gb"] = peak(device)
    for copies in given.fewer:
        run = fd.fusedream("a photo of a blue dog", models, budget=replace(sizes, copies=copies))
        next(run)
        row.setdefault("step_s_by_copies", {})[copies] = seconds(run.__next__, device, 3, given.seconds)
    if name in ("biggan-256", "biggan-512"):
        row |= plainly(name, models, given)
    return row


def plainly(name: str, models: Models, given: argparse.Namespace) -> dict[str, Any]:
    """Return what the plain loop costs at the same shape, and how many times as long it takes."""
    device = models.device
    clip = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval().requires_grad_(False)
    tokens = open_clip.tokenize(["a photo of a blue dog"]).to(device)
    plain = PlainBigGAN(SHAPES[int(name.rpartition("-")[2])]).to(device)
    loop = PlainLoop(plain, clip.to(device), tokens, k=5, copies=given.copies)
    return {
        "plain_start_s_a_sample": seconds(loop.start, device, 1, given.seconds) / 10,
        "plain_step_s": seconds(loop.step, device, 3, given.seconds),
    }


def main() -> None:
    """Measure the shapes that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=list(NAMES), choices=[*NAMES, []])
    parser.add_argument("--device")
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--fewer", type=int, nargs="*", default=[], help="further copies of FuseDream's step")
    parser.add_argument("--samples", type=int, default=20, help="of the start, to be timed: 5 or more")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each number, at least")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    device = resolve_device(given.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    encoder = clip().to(device, dtype)
    stickers = fd.load("stickers", device=str(device))
    machine = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    )
    told = {"machine": machine, "torch": torch.__version__, "python": platform.python_version()}
    told["matmul_tflop_s"] = {
        str(kind).removeprefix("torch."): rate(device, kind) / 1e12 for kind in {torch.float32, dtype}
    }
    rows = []
    for name in given.shapes:
        shape = generator(name).to(device, dtype)  # type: ignore[attr-defined]
        models = replace(
            stickers,
            generator=shape,
            clip=encoder,
            judge=encoder,
            name=name,
            world="",
            device=device,
            dtype=dtype,
        )
        rows.append(measure(name, models, given))
        if "plain_step_s" in rows[-1]:
            rows[-1]["start_times_faster"] = rows[-1]["plain_start_s_a_sample"] / rows[-1]["start_s_a_sample"]
            rows[-1]["step_times_faster"] = rows[-1]["plain_step_s"] / rows[-1]["step_s"]
        if not given.json:
            print(json.dumps(rows[-1]), flush=True)
    if given.json:
        print(json.dumps({**told, "shapes": rows}, indent=1))
    else:
        print(json.dumps(told))


if __name__ == "__main__":
    main()
