"""Draw the sheets beside the model cards: ``python tools/model_sheets.py LOGS docs``.

LOGS is the folder of training runs; their logs are copied beside the curves.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

import fusedream_nb as fd
from fusedream_nb.models.biggan import BigGANDeep
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.stickers.scenes import sample_scenes
from fusedream_nb.models.stickers.world import render
from fusedream_nb.models.weights import entry
from training.report import draw_samples, shipped_vqgans
from training.vqgan import LAWS

RUNS = ("clip", "judge", "generator", "presence", "third", "trunk", "vqgan", "vqgan-painted", "upscaler")
HIDDEN = ("step", "minutes", "pictures", "weight", "auxiliary", "used", "codebook")


def write(images: Tensor, columns: int, target: Path) -> None:
    """Save images [n, 3, h, w] in [-1, 1] as one small WebP."""
    sheet = make_grid(images / 2 + 0.5, columns, padding=2, pad_value=1.0)
    pixels = (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(target, quality=88, method=6)
    print(target, f"{target.stat().st_size / 1e3:.0f} kB")


@torch.no_grad()
def samples(folder: Path) -> None:
    """Draw samples by class, by truncation, and interpolations."""
    weights = entry("stickers").require() / "generator"
    generator = BigGANDeep.from_path(weights)
    classes = len(generator.embeddings)
    images, _, label = draw_samples(generator, 8 * classes, torch.Generator().manual_seed(1))
    write(images[label.argsort(stable=True)], 16, folder / "samples_by_class.webp")
    rows = []
    for truncation in (0.2, 0.5, 0.8, 1.0):
        part = BigGANDeep.from_path(weights, truncation=truncation)
        rows.append(draw_samples(part, 14, torch.Generator().manual_seed(2))[0])
    write(torch.cat(rows), 14, folder / "samples_by_truncation.webp")
    rng = torch.Generator().manual_seed(3)
    a, b = generator.sample(5, rng), generator.sample(5, rng)
    share = torch.linspace(0, 1, 12)[None, :, None]
    path = [
        torch.lerp(x[:, None], y[:, None], share).flatten(0, 1)
        for x, y in zip(a.tensors(), b.tensors(), strict=True)
    ]
    write(generator.decode(Latent(*path)), 12, folder / "interpolations.webp")
    write(render(sample_scenes(64, torch.Generator().manual_seed(4))), 16, folder / "world.webp")


@torch.no_grad()
def reconstructions(folder: Path) -> None:
    """Draw pictures of each VQGAN's world, two rows above their reconstructions."""
    rows = []
    for name, generator in shipped_vqgans().items():
        image = render(LAWS[name](32, torch.Generator().manual_seed(5)))
        rows += [image, generator.decode(generator.encode(image))]
    write(torch.cat(rows), 16, folder / "reconstructions.webp")


def curves(logs: Path, folder: Path) -> None:
    """Copy the logs that are there, and draw what all say."""
    figure = Figure(figsize=(9, 6.3), layout="constrained", facecolor="white")
    for ax, name in zip(figure.subplots(3, 3).flat, RUNS, strict=True):
        log = folder / f"log_{name}.jsonl"
        if (logs / name / "log.jsonl").exists():
            shutil.copy(logs / name / "log.jsonl", log)
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        keys = [key for key in rows[-1] if key not in HIDDEN]
        for key, colour in zip(keys, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=False):
            points = [(row["minutes"], row[key]) for row in rows if key in row]
            ax.plot(*zip(*points, strict=True), label=key, color=colour, linewidth=1)
        ax.set(title=name, xlabel="minutes")
        ax.legend(frameon=False, fontsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "training_curves.png", dpi=110)


if __name__ == "__main__":
    fd.load("stickers")
    target = Path(sys.argv[2]) / "models"
    target.mkdir(parents=True, exist_ok=True)
    samples(target)
    reconstructions(target)
    curves(Path(sys.argv[1]), target)
