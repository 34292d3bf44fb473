"""The fast augmentations beside DiffAugment done operation by operation, in the same process.

python benchmarks/augment.py --size 512 --copies 50
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_nb.method import views


def plainly(image: Tensor, copies: int, size: int, rng: torch.Generator) -> Tensor:
    """Augment each copy at full size, then shrink it."""
    out = []
    for _ in range(copies):
        u = torch.rand(9, generator=rng).tolist()
        x = image + u[0] - 0.5
        grey = x.mean(1, keepdim=True)
        x = (x - grey) * 2 * u[1] + grey
        x = (x - x.mean()) * (0.5 + u[2]) + x.mean()
        side = x.shape[-1]
        limit = side // 8
        dx, dy = int(2 * limit * u[3]), int(2 * limit * u[4])
        x = F.pad(x, [limit] * 4)[:, :, dy : dy + side, dx : dx + side]
        new = int(side * (0.8 + 0.4 * u[5]))
        x = F.interpolate(x, (new, new), mode="bilinear")
        pad = (side - new) // 2
        x = F.pad(x, (pad, side - new - pad, pad, side - new - pad))
        mask = torch.ones_like(x)
        cx, cy = int(side * u[6]), int(side * u[7])
        mask[:, :, max(0, cy - side // 4) : cy + side // 4, max(0, cx - side // 4) : cx + side // 4] = 0
        out.append(F.interpolate(x * mask, (size, size), mode="bilinear"))
    return torch.cat(out)


def seconds(function: Callable[[Tensor], Tensor], image: Tensor) -> float:
    """Return the best of three times of a forward and a backward pass."""
    times = []
    for _ in range(4):
        began = time.monotonic()
        function(image.requires_grad_()).sum().backward()
        times.append(time.monotonic() - began)
    return min(times[1:])


def main() -> None:
    """Time both and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--clip-size", type=int, default=224)
    parser.add_argument("--copies", type=int, default=50)
    given = parser.parse_args()
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, given.size, given.size, generator=rng) * 2 - 1
    plain = seconds(lambda x: plainly(x, given.copies, given.clip_size, rng), image)
    fast = seconds(lambda x: views.augment(x, views.sample(1, given.copies, rng), given.clip_size), image)
    what = f"{given.copies} copies, {given.size} to {given.clip_size} px"
    print(f"{what}: plain {plain:.3f} s, fast {fast:.3f} s, {plain / fast:.1f} times")


if __name__ == "__main__":
    main()
