"""Training of the LPIPS trunk: SqueezeNet 1.1 learns to name what is in pictures of the rich world."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from . import data
from .networks import Perceived, Readings, lpips_input
from .run import Run

SEED = 1404


def train_trunk(
    folder: Path, minutes: float, device: torch.device, pool: int, batch: int
) -> dict[str, Tensor]:
    """Train the trunk on pictures at 64 and, enlarged, at 128 pixels; return the weights of its features."""
    rng = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    model = torchvision.models.squeezenet1_1(num_classes=192, dropout=0.0)
    model = model.to(device, memory_format=torch.channels_last)
    readings = Readings(192, data.READINGS).to(device)
    parameters = [*model.parameters(), *readings.parameters()]
    optimiser = torch.optim.AdamW(parameters, weight_decay=1e-4)
    run = Run(folder, minutes, {"model": model, "readings": readings, "optimiser": optimiser})
    rng.manual_seed(SEED + 1000 * run.step)
    pools = [data.Pool(pool // 2, law, rng, device) for law in (data.rich, data.crops)]
    going = True
    while going:
        chosen = data.cat([each.pick(batch // 2) for each in pools])
        image = lpips_input(data.perturb(chosen.image, rng))
        if run.step % 2:
            image = F.interpolate(image, scale_factor=2.0, mode="bilinear")
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            features = model(image.contiguous(memory_format=torch.channels_last))
        loss = readings(features.float(), {k: v.to(device) for k, v in chosen.readings().items()})
        run.set_rate(optimiser, 1e-3)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        pools[run.step % 2].renew(max(4, batch // 4))
        going = run.tick(batch, loss=loss)
    return model.features.state_dict()


def perceived(folder: Path, device: torch.device) -> Perceived | None:
    """Return the distance on a finished trunk, or None where there is none yet."""
    path = folder / "trunk" / "weights.pt"
    if not path.exists():
        return None
    module = Perceived()
    module.features.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return module.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
