"""Training of the two CLIPs and of the LPIPS trunk, all on scenes of the rich world."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from . import nouns as world
from .captions import WordTokenizer, caption
from .networks import CLIP_CONFIGS, SIZE, AuxiliaryHeads
from .scenes import Scenes, sample_scenes
from .training import Run, ema_update
from .world import render

SEEDS = {"clip": 101, "judge": 202, "trunk": 303}
_HEADS = {
    "noun": len(world.NOUNS),
    "colour": len(world.COLOURS) + 1,
    "background": len(world.BACKGROUNDS),
    "style": len(world.STYLES),
    "effect": len(world.EFFECTS),
}


def draw_pool(n: int, rng: torch.Generator) -> tuple[Scenes, Tensor]:
    """Draw n scenes ahead and return them with their pictures [n, 3, 64, 64] as uint8."""
    scenes = sample_scenes(n, rng)
    pictures = [((render(scenes[i : i + 1024], SIZE) + 1) * 127.5).round().byte() for i in range(0, n, 1024)]
    return scenes, torch.cat(pictures)


def _targets(scenes: Scenes) -> dict[str, Tensor]:
    """Return what the auxiliary heads learn to read."""
    present = F.one_hot(scenes.noun.clamp(min=0), len(world.NOUNS)) * (scenes.noun >= 0)[..., None]
    return {
        "noun": present.amax(1).float(),
        "colour": scenes.colour[:, 0] + 1,
        "background": scenes.background,
        "style": scenes.style,
        "effect": scenes.effect,
    }


def _perturb(image: Tensor, rng: torch.Generator) -> Tensor:
    """Shift by a few pixels, change the light and cut a small hole: what any photo may suffer."""
    n = len(image)
    shift = torch.randint(-4, 5, (2,), generator=rng)
    image = torch.roll(image, shift.tolist(), (2, 3)) if torch.rand((), generator=rng) < 0.5 else image
    light = (torch.rand(n, 1, 1, 1, generator=rng) - 0.5) * 0.3
    centre = torch.randint(SIZE, (n, 2, 1, 1), generator=rng)
    half = torch.randint(0, 13, (n, 1, 1), generator=rng)
    axis = torch.arange(SIZE)
    hole = ((axis.view(1, 1, -1) - centre[:, 0]).abs() < half) & (
        (axis.view(1, -1, 1) - centre[:, 1]).abs() < half
    )
    return (image + light.to(image)) * (~hole)[:, None].to(image)


def _batch(places: list[Tensor], batch: int, rng: torch.Generator) -> Tensor:
    """Pick scenes of one background, so that only what stands before it tells their captions apart."""
    same = places[int(torch.randint(len(places), (), generator=rng))]
    return same[torch.randint(len(same), (batch,), generator=rng)]


def train_clip(
    name: str, folder: Path, minutes: float, device: str, pool: int, batch: int = 128
) -> dict[str, Tensor]:
    """Train the climbed CLIP or the judge by the symmetric contrastive loss; return its weights."""
    rng = torch.Generator().manual_seed(SEEDS[name])
    words = random.Random(SEEDS[name])
    torch.manual_seed(SEEDS[name])
    model = open_clip.CLIP(**CLIP_CONFIGS[name]).to(device, memory_format=torch.channels_last)
    heads = AuxiliaryHeads(CLIP_CONFIGS[name]["embed_dim"], _HEADS).to(device)
    average = copy.deepcopy(model)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.05},
            {"params": [*others, *heads.parameters()], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    run = Run(folder, minutes, {"model": model, "heads": heads, "average": average, "optimiser": optimiser})
    rng.manual_seed(SEEDS[name] + 1000 * run.step)
    scenes, pictures = draw_pool(pool, rng)
    places = [(scenes.background == b).nonzero()[:, 0] for b in range(len(world.BACKGROUNDS))]
    tokenizer = WordTokenizer()
    model.train()
    going = True
    while going:
        index = _batch(places, batch, rng) if run.step % 2 else torch.randint(pool, (batch,), generator=rng)
        chosen = scenes[index]
        tokens = tokenizer([caption(chosen, i, words) for i in range(batch)]).to(device)
        image = _perturb(pictures[index].to(device).float() / 127.5 - 1, rng)
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            image_features, text_features, scale = model(image, tokens)[:3]
            logits = scale * image_features.float() @ text_features.float().T
            # Equal captions are right for each other's pictures too.
            same = (tokens[:, None] == tokens[None]).all(-1).float()
            target = same / same.sum(1, keepdim=True)
            contrastive = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
            targets = {k: v.to(device) for k, v in _targets(chosen).items()}
            auxiliary = heads(image_features.float() * 12, targets)
        loss = contrastive + 0.25 * auxiliary
        for group in optimiser.param_groups:
            group["lr"] = run.rate(2e-3)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.0)
        ema_update(average, model, min(0.995, (run.step + 1) / (run.step + 20)))
        right = (logits.argmax(1) == logits.diagonal().new_tensor(range(batch))).float().mean()
        going = run.tick(loss=contrastive.item(), auxiliary=auxiliary.item(), right=right.item())
    return average.state_dict()


def train_trunk(
    name: str, folder: Path, minutes: float, device: str, pool: int, batch: int = 128
) -> dict[str, Tensor]:
    """Train SqueezeNet 1.1 to name what stands in a picture; return the weights of its features."""
    rng = torch.Generator().manual_seed(SEEDS[name])
    torch.manual_seed(SEEDS[name])
    model = torchvision.models.squeezenet1_1(num_classes=192, dropout=0.0).to(device)
    heads = AuxiliaryHeads(192, _HEADS).to(device)
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, weight_decay=1e-4)
    run = Run(folder, minutes, {"model": model, "heads": heads, "optimiser": optimiser})
    rng.manual_seed(SEEDS[name] + 1000 * run.step)
    scenes, pictures = draw_pool(pool, rng)
    going = True
    while going:
        index = torch.randint(pool, (batch,), generator=rng)
        image = lpips_input(_perturb(pictures[index].to(device).float() / 127.5 - 1, rng))
        loss = heads(model(image), {k: v.to(device) for k, v in _targets(scenes[index]).items()})
        for group in optimiser.param_groups:
            group["lr"] = run.rate(1e-3)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        going = run.tick(loss=loss.item())
    return model.features.state_dict()


def lpips_input(image: Tensor) -> Tensor:
    """Shift and scale pictures in [-1, 1] as the ``lpips`` package does before its trunk."""
    shift = torch.tensor([-0.030, -0.088, -0.188], device=image.device).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450], device=image.device).view(1, 3, 1, 1)
    return (image - shift) / scale
