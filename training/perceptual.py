"""Training of LPIPS: a trunk, SqueezeNet 1.1, and its linear heads, from the trunk that ships.

The trunk learns to name what is in pictures of the rich world. At the same time the distance between a
picture and a spoilt one is taught what the published LPIPS says of such pairs, so that a weight on it, as β
in Eq. 6 of FuseDream, means what it does in the paper. Heads alone cannot do it: a trunk that only names
objects looks past noise and blur.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from fusedream_nb.models.stickers.world import render
from fusedream_nb.models.weights import STICKERS

from . import data
from .data import blur
from .networks import Perceived, Readings
from .run import Run

SEED = 1404
PUBLISHED = {  # medians of the published LPIPS (AlexNet) on 300 photos of the world at 64 pixels, by strength
    "noise": {0.0: 0.0, 0.025: 0.0127, 0.05: 0.0608, 0.1: 0.1978, 0.2: 0.4483},  # deviation of [0, 1]
    "blur": {0.0: 0.0, 0.5: 0.0102, 1.0: 0.098, 2.0: 0.2568, 3.0: 0.3571},  # deviation in pixels
    "shift": {0.0: 0.0, 1.0: 0.0142, 2.0: 0.0296, 4.0: 0.056},  # pixels
    "dark": {0.0: 0.0, 0.2: 0.012, 0.5: 0.0913},  # share of the light that is taken away
    "other": {0.0: 0.5216, 1.0: 0.5216},  # another picture
}
TAUGHT = 10.0  # weight of the distances' relative error, beside the readings
SOFT = 0.02  # a distance at which errors count as absolute ones


def spoil(kind: str, image: Tensor, strength: Tensor) -> Tensor:
    """Spoil pictures [n, 3, h, w] in [-1, 1] in one way, each by its strength [n]; shifts are whole."""
    each = strength.to(image.device).view(-1, 1, 1, 1)
    if kind == "noise":
        image = image + 2 * each * torch.randn_like(image)
    elif kind == "blur":
        image = blur(image, strength, reach=9)
    elif kind == "shift":
        image = torch.stack([x.roll(int(by), 2) for x, by in zip(image, strength, strict=True)])
    elif kind == "dark":
        image = (image + 1) * (1 - each) - 1
    else:
        image = image.roll(1, 0)
    return image.clamp(-1, 1)


def spoilt(image: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Spoil pictures [n, 3, h, w] in all ways, a part each; return also their published distances [n]."""
    images, published = [], []
    for (kind, table), part in zip(PUBLISHED.items(), image.chunk(len(PUBLISHED)), strict=True):
        strength = max(table) * torch.rand(len(part), generator=rng)
        strength = strength.round() if kind == "shift" else strength
        images.append(spoil(kind, part, strength))
        published.append(np.interp(strength, list(table), list(table.values())))
    return torch.cat(images), torch.from_numpy(np.concatenate(published)).to(image)


def train_trunk(
    folder: Path, minutes: float, device: torch.device, pool: int, batch: int
) -> dict[str, Tensor]:
    """Train the shipped trunk on, with its heads; return the weights of both."""
    rng = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    model = perceived(folder.parent, device).requires_grad_(True).train()
    namer = torchvision.models.squeezenet1_1(num_classes=192, dropout=0.0).classifier.to(device)
    readings = Readings(192, data.READINGS).to(device)
    parameters = [p for part in (model, namer, readings) for p in part.parameters()]
    optimiser = torch.optim.AdamW(parameters, weight_decay=1e-4)
    state = {"model": model, "namer": namer, "readings": readings, "optimiser": optimiser}
    run = Run(folder, minutes, state)
    rng.manual_seed(SEED + 1000 * run.step)
    pools = [data.Pool(pool // 2, law, rng, device) for law in (data.rich, data.crops)]
    going = True
    while going:
        chosen = data.cat([each.pick(batch // 2) for each in pools])
        mixed = torch.randperm(batch, generator=rng)
        image = data.perturb(chosen.image, rng)[mixed.to(device)]
        other, published = spoilt(image, rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            last, slices = model.slices(torch.cat([image, other]))
            named = namer(last[:batch]).flatten(1).float()
        distance = model.apart(slices)
        error = ((distance - published).abs() / (published + SOFT)).mean()
        read = readings(named, {k: v[mixed].to(device) for k, v in chosen.readings().items()})
        run.set_rate(optimiser, 5e-4)
        optimiser.zero_grad(set_to_none=True)
        (read + TAUGHT * error).backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimiser.step()
        model.positive()
        pools[run.step % 2].renew(max(4, batch // 4))
        going = run.tick(batch, read=read, error=error)
    calibrate(model, render(data.photos(300, rng), device=device))
    return model.state_dict()


@torch.no_grad()
def calibrate(model: Perceived, image: Tensor) -> None:
    """Scale the heads so that the medians over pictures [n, 3, h, w] are the published ones on average.

    A relative error is lowest a little below what is asked for. The mean is a geometric one, over all kinds.
    """
    off = []
    for kind, table in PUBLISHED.items():
        medians = []
        for strength, published in table.items():
            if published and strength:
                other = spoil(kind, image, torch.full((len(image),), strength))
                parts = zip(image.split(50), other.split(50), strict=True)
                found = torch.cat([model.apart(model.slices(torch.cat(pair))[1]) for pair in parts])
                medians.append((found.median() / published).log())
        off.append(torch.stack(medians).mean())
    for head in model.heads:
        head /= torch.stack(off).mean().exp()


def perceived(folder: Path, device: torch.device) -> Perceived:
    """Return the distance on the trunk of a folder of runs, or on the one that ships while there is none."""
    path = folder / "trunk" / "weights.pt"
    if path.exists():
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    else:
        tensors = load_file(STICKERS / "lpips" / "model.safetensors")
        tensors = {
            name if name.startswith("heads") else f"features.{name}": tensors[name] for name in tensors
        }
    module = Perceived()
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    return module.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
