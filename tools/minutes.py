"""Count what notebooks ask of real networks, and estimate their minutes on a T4 until one has measured them.

    python tools/minutes.py notebooks/*.ipynb             # prints
    python tools/minutes.py notebooks/*.ipynb --write     # and puts it in the notebooks' lines of time

A notebook runs at a budget, ``colab`` unless another is named, on stand-ins that draw and read next to
nothing but count their pictures: forwards, and there and back. The arithmetic is that of BigGAN-256, VQGAN
f16 and ViT-B/32. While it is busy, an H200 does a step at 18 % of its rate of matrix products
(docs/speed.md); the same share of a T4's 40 TFLOP/s is the rate that minutes are counted at.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
GMAC = {"BigGAN": 60.4, "VQGAN": 385.0, "CLIP": 4.41}  # one picture forwards; the VQGAN's of 480 × 480
RATE = 0.18 * 40  # TFLOP a second
SIDE = 16  # pixels that the counting encoders read
GRIDS = {"11": "vqgan-imagenet-16384", "12": "vqgan-imagenet-16384", "13": "vqgan-wikiart"}
LINE = "on a T4 about {} min with real models at `{}`, estimated from counted arithmetic"
TOLD = re.compile(r"(?i)(not measured )?on a (GPU[:,]? not measured|GPU|T4 about [^.]+arithmetic)")
tflop: Counter[str] = Counter()


def count(network: str, n: float, *inputs: Tensor) -> None:
    """Add n pictures, there and back where a gradient is asked for."""
    back = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    tflop[network] += n * (4 if back else 2) * GMAC[network] / 1e3


def instrument() -> None:
    """Let generators, encoders and Inception count instead of compute."""
    from fusedream_nb.evaluation.networks import Inception
    from fusedream_nb.models.biggan import BigGAN
    from fusedream_nb.models.encoders import Clip
    from fusedream_nb.models.vqgan import VQGAN

    made = Clip.__init__

    def small(clip: Clip, *args: Any, **more: Any) -> None:  # noqa: ANN401
        made(clip, *args, **more)
        clip.size = SIDE

    def draw(generator: BigGAN, latent: Any) -> Tensor:  # noqa: ANN401
        count("BigGAN", len(latent), *latent.tensors())
        shade = (latent.z.flatten(1)[:, :3] + latent.y.flatten(1)[:, :3]).tanh()
        return shade[:, :, None, None].expand(-1, -1, generator.size, generator.size)

    def decode(generator: VQGAN, latent: Any) -> Tensor:  # noqa: ANN401
        count("VQGAN", latent.z[:, 0].numel() / 900, latent.z)
        return F.interpolate(latent.z[:, :3].tanh(), scale_factor=generator.factor)

    def read(clip: Clip, image: Tensor) -> Tensor:
        count("CLIP", len(image), image)
        seen = F.interpolate(image, (4, 4), mode="area").flatten(1)
        return F.normalize(F.pad(seen + 0.1, (0, clip.dim - seen.shape[1])), dim=-1)

    def measure(network: Inception, image: Tensor) -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(len(image))
        return torch.randn(len(image), 64, generator=rng), torch.randn(len(image), 1008, generator=rng)

    Clip.__init__, Clip.encode_image = small, read  # type: ignore[method-assign]
    BigGAN.decode, VQGAN.decode = draw, decode  # type: ignore[method-assign]
    Inception.__init__, Inception.__call__ = lambda *_: None, measure  # type: ignore[method-assign]


def run(path: Path) -> float:
    """Run a notebook's cells; return the TFLOP that it asks for."""
    tflop.clear()
    os.environ["FUSEDREAM_MODEL"] = GRIDS.get(path.name[:2], "biggan-256")
    names: dict[str, Any] = {"display": print}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
    return sum(tflop.values())


def write(path: Path, line: str) -> None:
    """Put a line into a notebook's words on time, where they speak of a GPU."""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    i = next((i for i, text in enumerate(lines) if "**Time and memory**" in text), None)
    if i is not None and (old := TOLD.search(lines[i])):
        new = line[0].upper() + line[1:] if old[0][0] == "O" else line
        lines[i] = lines[i].replace(old[0], new)
        path.write_text("".join(lines), "utf-8")


def main() -> None:
    """Read the command line and go through the notebooks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--budget", default="colab")
    parser.add_argument("--write", action="store_true", help="put the minutes into the notebooks")
    given = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import standins

    from fusedream_nb.models.weights import CLIP, JUDGE

    with tempfile.TemporaryDirectory() as folder:
        told = {"CACHE": folder, "BUDGET": given.budget, "DEVICE": "cpu", "OFFLINE": "1"}
        os.environ.update({f"FUSEDREAM_{name}": value for name, value in told.items()})
        standins.build(Path(folder), "biggan-256", CLIP, JUDGE, "lpips-squeeze", *set(GRIDS.values()))
        instrument()
        for path in given.notebooks:
            work, parts = run(path), ", ".join(f"{name} {value:.0f}" for name, value in tflop.items())
            minutes = max(1, round(work / RATE / 60))
            print(f"\n{path.name}: {work:.0f} TFLOP ({parts}), about {minutes} minutes on a T4", flush=True)
            if given.write:
                write(path, LINE.format(minutes, given.budget))


if __name__ == "__main__":
    main()
