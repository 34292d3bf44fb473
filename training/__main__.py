"""Train the embedded models: ``python -m training NAME`` or ``python -m training all``.

Names: trunk, generator, vqgan, vqgan-painted, clip, judge, presence, third, upscaler. Models learn from each
other's latest weights in the folder --out, so ``all`` trains them side by side on a GPU, and one after
another on a CPU. A run that was stopped goes on from its checkpoint when the same command is given again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

DEVICES = ("cuda", "cpu")
PLAN = {  # when each begins and ends, as shares of the time of "all" on a GPU
    "trunk": (0.0, 0.25),
    "generator": (0.0, 1.0),
    "vqgan": (0.0, 1.0),
    "vqgan-painted": (0.0, 1.0),
    "clip": (0.0, 1.0),
    "judge": (0.0, 1.0),
    "presence": (0.0, 1.0),
    "third": (0.0, 1.0),
    "upscaler": (0.75, 1.0),
}
TURNS = {  # shares of the time of "all" on a CPU, in turn
    "trunk": 0.05,
    "generator": 0.3,
    "vqgan": 0.12,
    "clip": 0.18,
    "judge": 0.13,
    "presence": 0.05,
    "third": 0.05,
    "vqgan-painted": 0.09,
    "upscaler": 0.03,
}
SIZES = {  # pictures drawn ahead and in a batch, on a GPU and on a CPU
    "trunk": ((4096, 256), (2000, 64)),
    "generator": ((8192, 128), (4096, 32)),
    "vqgan": ((4096, 64), (2000, 8)),
    "vqgan-painted": ((4096, 64), (2000, 8)),
    "clip": ((6144, 512), (2000, 64)),
    "judge": ((6144, 512), (2000, 64)),
    "presence": ((6144, 512), (2000, 64)),
    "third": ((6144, 512), (2000, 64)),
    "upscaler": ((256, 64), (100, 8)),
}


def trainer(name: str) -> Callable[..., dict[str, torch.Tensor]]:
    """Return what trains a model: (folder, minutes, device, pool, batch, …) → weights."""
    from functools import partial

    from . import encoders, generator, perceptual, readers, upscaler, vqgan

    if name in encoders.SEEDS:
        return partial(encoders.train_encoder, name)
    if name in readers.SEEDS:
        return partial(readers.train_reader, name)
    if name in vqgan.LAWS:
        return partial(vqgan.train_vqgan, name)
    return {
        "trunk": perceptual.train_trunk,
        "generator": generator.train_generator,
        "upscaler": upscaler.train_upscaler,
    }[name]


def train(given: argparse.Namespace, device: torch.device) -> None:
    """Train one model and leave its weights in the folder."""
    from .run import write

    name, folder = given.name, given.out / given.name
    pool, batch = SIZES[name][0 if device.type == "cuda" else 1]
    pool, batch = given.pool or pool, given.batch or batch
    print(f"{name}: {given.minutes:g} minutes on {device}; checkpoints in {folder}", flush=True)
    more = {"earlier": given.climbed} if name in ("clip", "judge", "presence", "third") else {}
    weights = trainer(name)(folder, given.minutes, device, pool, batch, **more)
    write({key: value.cpu() for key, value in weights.items()}, folder / "weights.pt")
    print(f"{name}: saved {folder / 'weights.pt'}", flush=True)


def train_all(given: argparse.Namespace, device: torch.device) -> None:
    """Train every model, each in a process of its own: side by side on a GPU, in turn on a CPU."""
    began = time.monotonic()

    def start(name: str, minutes: float) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "training", name, "--device", device.type, "--out", str(given.out)]
        words += [f"--minutes={minutes}", f"--threads={given.threads or 2}"]
        for option in ("pool", "batch", "climbed"):
            words += [f"--{option}={getattr(given, option)}"] if getattr(given, option) else []
        return subprocess.Popen(words)

    if device.type == "cpu":
        for name, share in TURNS.items():
            if (code := start(name, share * given.minutes).wait()) != 0:
                sys.exit(f"{name} failed with {code}.")
        return
    running = []
    for name, (first, last) in sorted(PLAN.items(), key=lambda item: item[1][0]):
        time.sleep(max(0.0, first * given.minutes * 60 - (time.monotonic() - began)))
        left = last * given.minutes - (time.monotonic() - began) / 60
        running.append((name, start(name, left)))
    failed = [name for name, process in running if process.wait() != 0]
    if failed:
        sys.exit(f"These failed: {', '.join(failed)}.")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=[*SIZES, "all"])
    parser.add_argument("--device", default="auto", choices=("auto", *DEVICES))
    parser.add_argument("--minutes", type=float, default=9.0, help="length of the run, over all its sessions")
    parser.add_argument(
        "--out", type=Path, default=Path("training-out"), help="folder of checkpoints and logs"
    )
    parser.add_argument("--climbed", type=Path, help="folder of an earlier CLIP that is climbed as well")
    parser.add_argument("--pool", type=int, help="pictures drawn ahead into memory")
    parser.add_argument("--batch", type=int, help="pictures in a step")
    parser.add_argument("--threads", type=int, help="CPU threads")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(found if given.device == "auto" else given.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    (train_all if given.name == "all" else train)(given, device)


if __name__ == "__main__":
    main()
