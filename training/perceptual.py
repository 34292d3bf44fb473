"""Training of the LPIPS trunk, SqueezeNet 1.1, on pictures of the rich world, some of them spoilt.

A trunk that only names objects learns to look past noise and blur, and a distance on it hardly sees them. So
it must also tell how noisy and how blurred a picture is.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from fusedream_nb.models.weights import STICKERS

from . import data
from .data import blur
from .networks import Perceived, Readings, lpips_input
from .run import Run

SEED = 1404
LEVELS = 6  # of noise and of blur; the first is none
NOISE, BLUR = 0.25, 3.0  # standard deviations at the last level, of pictures in [-1, 1] and in pixels


def spoilt(image: Tensor, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Add noise to some pictures [n, 3, h, w] and blur some; return also the levels [n] of each."""
    level = torch.randint(LEVELS, (2, len(image)), generator=rng)
    level = level * (torch.rand(2, len(image), generator=rng) < 0.5)
    strength = (level / (LEVELS - 1)).to(image.device)
    image = blur(image, BLUR * strength[1])
    image = image + NOISE * strength[0].view(-1, 1, 1, 1) * torch.randn_like(image)
    return image.clamp(-1, 1), {"noise": level[0], "blur": level[1]}


def train_trunk(
    folder: Path, minutes: float, device: torch.device, pool: int, batch: int
) -> dict[str, Tensor]:
    """Train the shipped trunk on, on pictures at 64 and, enlarged, at 128 pixels; return its features."""
    rng = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    model = torchvision.models.squeezenet1_1(num_classes=192, dropout=0.0)
    model.features.load_state_dict(perceived(folder.parent, torch.device("cpu")).features.state_dict())
    model = model.to(device, memory_format=torch.channels_last)
    readings = Readings(192, data.READINGS | {"noise": LEVELS, "blur": LEVELS}).to(device)
    parameters = [*model.parameters(), *readings.parameters()]
    optimiser = torch.optim.AdamW(parameters, weight_decay=1e-4)
    run = Run(folder, minutes, {"model": model, "readings": readings, "optimiser": optimiser})
    rng.manual_seed(SEED + 1000 * run.step)
    pools = [data.Pool(pool // 2, law, rng, device) for law in (data.rich, data.crops)]
    going = True
    while going:
        chosen = data.cat([each.pick(batch // 2) for each in pools])
        image, levels = spoilt(data.perturb(chosen.image, rng), rng)
        if run.step % 2:
            image = F.interpolate(image, scale_factor=2.0, mode="bilinear")
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            features = model(lpips_input(image).contiguous(memory_format=torch.channels_last))
        targets = {k: v.to(device) for k, v in (chosen.readings() | levels).items()}
        loss = readings(features.float(), targets)
        run.set_rate(optimiser, 1e-3)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        pools[run.step % 2].renew(max(4, batch // 4))
        going = run.tick(batch, loss=loss)
    return model.features.state_dict()


def perceived(folder: Path, device: torch.device) -> Perceived:
    """Return the distance on the trunk of a folder of runs, or on the one that ships while there is none."""
    path = folder / "trunk" / "weights.pt"
    if path.exists():
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    else:
        tensors = load_file(STICKERS / "lpips" / "model.safetensors")
    module = Perceived()
    module.features.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return module.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
