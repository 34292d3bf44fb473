"""Training of the two CLIPs and of the LPIPS trunk, all on scenes of the rich world."""

from __future__ import annotations

import copy
import random
from dataclasses import fields
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from . import nouns as world
from .captions import WordTokenizer, article, caption
from .networks import CLIP_CONFIGS, SIZE, AuxiliaryHeads
from .scenes import ENCODER_FORBIDDEN, Scenes, sample_scenes
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


class Pool:
    """Scenes and their pictures [n, 3, 64, 64] as uint8, drawn ahead and renewed a few at a time."""

    def __init__(self, n: int, rng: torch.Generator) -> None:
        self.rng = rng
        self.scenes = sample_scenes(n, rng)
        self.pictures = torch.cat([as_bytes(self.scenes[i : i + 1024]) for i in range(0, n, 1024)])
        self._next = 0

    def renew(self, n: int) -> None:
        """Put n fresh scenes in the place of the oldest ones."""
        rows = torch.arange(self._next, self._next + n) % len(self.scenes)
        self._next = int(rows[-1]) + 1
        fresh = sample_scenes(n, self.rng)
        for field in fields(Scenes):
            getattr(self.scenes, field.name)[rows] = getattr(fresh, field.name)
        self.pictures[rows] = as_bytes(fresh)

    def pick(self, n: int, one_place: bool) -> tuple[Scenes, Tensor]:
        """Pick n scenes, of one background if so asked: then only what stands before it tells them apart."""
        if one_place:
            place = torch.randint(len(world.BACKGROUNDS), (), generator=self.rng)
            rows = (self.scenes.background == place).nonzero()[:, 0]
            rows = rows[torch.randint(len(rows), (n,), generator=self.rng)]
        else:
            rows = torch.randint(len(self.scenes), (n,), generator=self.rng)
        return self.scenes[rows], self.pictures[rows].float() / 127.5 - 1


def as_bytes(scenes: Scenes) -> Tensor:
    """Draw scenes as pictures [n, 3, 64, 64] of uint8."""
    return ((render(scenes, SIZE) + 1) * 127.5).round().byte()


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


def perturb(image: Tensor, rng: torch.Generator) -> Tensor:
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


def _soften(image: Tensor, rng: torch.Generator) -> Tensor:
    """Take the fine detail from a third of the pictures: what a generator draws is soft at first."""
    soft = torch.rand(len(image), generator=rng) < 1 / 3
    side = int(torch.randint(SIZE // 4, SIZE, (), generator=rng))
    small = F.interpolate(image, (side, side), mode="bilinear", antialias=True)
    blurred = F.interpolate(small, image.shape[-2:], mode="bilinear")
    return torch.where(soft.view(-1, 1, 1, 1).to(image.device), blurred, image)


def _neighbours(words: random.Random, coloured: bool) -> list[str]:
    """Return 28 captions that differ in one noun, and 168 more, if so asked, in a colour and a noun."""
    start = words.choice(["", "a photo of ", "an image of ", "a picture of "])
    names = [words.choice(world.SYNONYMS.get(noun, (noun,))) for noun in world.NOUNS]
    if coloured:
        names += [f"{colour} {name}" for colour in world.COLOURS for name in names]
    return [f"{start}{article(name)}" for name in names]


def _neighbour_loss(cosines: Tensor, scenes: Scenes) -> Tensor:
    """Return the cross-entropies of images against :func:`_neighbours`, from scaled cosines [n, captions].

    Pairs held out from the encoders are no candidates, so their captions stay unseen.
    """
    nouns = len(world.NOUNS)
    target = _targets(scenes)["noun"].to(cosines)
    loss = F.cross_entropy(cosines[:, :nouns], target / target.sum(1, keepdim=True))
    if cosines.shape[1] == nouns:
        return loss
    one = ((scenes.colour[:, 0] >= 0) & (scenes.noun[:, 1] < 0)).nonzero()[:, 0]
    pair = scenes.colour[one, 0] * nouns + scenes.noun[one, 0]
    pairs = cosines[one, nouns:].masked_fill(ENCODER_FORBIDDEN.flatten().to(cosines.device), -torch.inf)
    return loss + F.cross_entropy(pairs, pair.to(cosines.device))


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
    data = Pool(pool, rng)
    tokenizer = WordTokenizer()
    model.train()
    going = True
    while going:
        chosen, image = data.pick(batch, one_place=run.step % 2 == 1)
        captions = [caption(chosen, i, words) for i in range(batch)]
        captions += _neighbours(words, coloured=run.step % 4 < 2)
        tokens = tokenizer(captions).to(device)
        image = _soften(perturb(image.to(device), rng), rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            image_features, text_features, scale = model(image, tokens)[:3]
            cosines = scale * image_features.float() @ text_features.float().T
            logits = cosines[:, :batch]
            # Equal captions are right for each other's pictures too.
            same = (tokens[:batch, None] == tokens[None, :batch]).all(-1).float()
            target = same / same.sum(1, keepdim=True)
            contrastive = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
            neighbours = _neighbour_loss(cosines[:, batch:], chosen)
            targets = {k: v.to(device) for k, v in _targets(chosen).items()}
            auxiliary = heads(image_features.float() * 12, targets)
        loss = contrastive + neighbours + 0.25 * auxiliary
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
        data.renew(16)
        going = run.tick(
            loss=contrastive.item(),
            neighbours=neighbours.item(),
            auxiliary=auxiliary.item(),
            right=right.item(),
        )
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
    data = Pool(pool, rng)
    going = True
    while going:
        chosen, image = data.pick(batch, one_place=False)
        image = lpips_input(perturb(image.to(device), rng))
        loss = heads(model(image), {k: v.to(device) for k, v in _targets(chosen).items()})
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
