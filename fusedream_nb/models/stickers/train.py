"""Train an embedded model: ``python -m fusedream_nb.models.stickers.train NAME``.

Names: clip, judge, trunk, upscaler; generator, vqgan and vqgan-painted, which want the trunk's weights in the
folder beside their own.
A run that was stopped goes on from its checkpoint when the same command is given again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from . import train_encoders
from .train_generator import train_generator
from .train_upscaler import train_upscaler
from .train_vqgan import LAWS, train_vqgan

# Minutes on two CPU cores (the upscaler: on one), and scenes drawn ahead (12 kB each).
DEFAULTS = {
    "clip": (50, 40_000),
    "judge": (40, 40_000),
    "trunk": (12, 15_000),
    "generator": (110, 30_000),
    "vqgan": (60, 20_000),
    "vqgan-painted": (60, 20_000),
    "upscaler": (12, 400),
}


def main() -> None:
    """Read the command line, say what the run will cost, train, save the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=list(DEFAULTS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, help="length of the run, over all its sessions")
    parser.add_argument("--out", type=Path, default=Path("training"), help="folder of checkpoints and logs")
    parser.add_argument("--pool", type=int, help="scenes drawn ahead into memory")
    parser.add_argument("--threads", type=int, help="CPU threads")
    given = parser.parse_args()
    minutes = given.minutes or DEFAULTS[given.name][0]
    pool = given.pool or DEFAULTS[given.name][1]
    each = 12288 * (17 if given.name == "upscaler" else 1)  # bytes a scene: it keeps them at 256 pixels too
    if given.threads:
        torch.set_num_threads(given.threads)
    print(
        f"{given.name}: {minutes:g} minutes on {given.device}, {torch.get_num_threads()} threads; "
        f"about {0.8 + pool * each / 2**30:.1f} GB of memory; checkpoints in {given.out / given.name}",
        flush=True,
    )
    folder = given.out / given.name
    if given.name == "generator":
        weights = train_generator(folder, minutes, given.device, pool)
    elif given.name in LAWS:
        weights = train_vqgan(given.name, folder, minutes, given.device, pool)
    elif given.name == "upscaler":
        weights = train_upscaler(folder, minutes, given.device, pool)
    elif given.name == "trunk":
        weights = train_encoders.train_trunk(given.name, folder, minutes, given.device, pool)
    else:
        weights = train_encoders.train_clip(given.name, folder, minutes, given.device, pool)
    torch.save({k: v.cpu() for k, v in weights.items()}, folder / "weights.pt")
    print(f"saved {folder / 'weights.pt'}; pack it with fusedream_nb.models.stickers.pack", flush=True)


if __name__ == "__main__":
    main()
