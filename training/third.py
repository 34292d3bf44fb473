"""A third reader of pictures, which tells when the judge is fooled, and how it is trained.

It has no words: it names the nouns in a picture and the colour of the first. It begins with random weights,
so neither CLIP nor the judge had a part in it. Only the report card and the benchmarks ask it.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from fusedream_nb.models.encoders import resize_and_crop
from fusedream_nb.models.stickers import nouns as world

from . import data
from .climbs import Climbs
from .data import COLOURS, NOUNS
from .encoders import STARTS, World, begin, uphill
from .networks import READ
from .run import Run, ema_update

FOLDER = Path(__file__).with_name("third")
SEED = 1303
WIDTHS = (24, 48, 96, 192)  # channels where the picture is halved once, twice, …
RATE = 2e-3  # AdamW's
STAINED = 0.5  # weight of climbed pictures, in which nothing is to be seen


class Third(nn.Module):
    """A small ResNet whose cells vote: pictures [n, 3, h, w] in [-1, 1] → logits [n, 28] and [n, 7].

    The first are of nouns, each there or not; the others of the first noun's colour, natural to begin with,
    as seen where that noun is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_shrink(3, WIDTHS[0]), nn.ReLU())
        for a, b in zip(WIDTHS, WIDTHS[1:], strict=False):
            self.features.append(BasicBlock(a, b, 2, nn.Sequential(*_shrink(a, b))))
        self.votes = nn.Conv2d(WIDTHS[-1], NOUNS + COLOURS + 1, 1)
        nn.init.constant_(self.votes.bias, -4.0)  # few cells see a noun at first

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of nouns and of colours."""
        votes = self.votes(self.features(resize_and_crop(image, READ))).flatten(2).float()
        nouns, colours = votes[:, :NOUNS], votes[:, NOUNS:]
        there = nouns.logsumexp(2)
        seen = nouns.gather(1, there.argmax(1)[:, None, None].expand(-1, 1, votes.shape[2])).softmax(2)
        return there, (colours * seen).sum(2)

    @torch.no_grad()
    def many(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of many pictures, a hundred at a time."""
        nouns, colours = zip(*map(self, image.split(100)), strict=True)
        return torch.cat(nouns), torch.cat(colours)

    def top(self, image: Tensor, n: int) -> list[list[str]]:
        """Return the n likeliest nouns of each picture, the likeliest first."""
        return [[world.NOUNS[i] for i in row] for row in self.many(image)[0].topk(n).indices.tolist()]

    def read(self, image: Tensor) -> list[str]:
        """Return "colour noun" of each picture, "noun" of a natural colour, "" where it sees none."""
        nouns, colours = self.many(image)
        there, noun = nouns.max(1)
        names = ("", *(f"{colour} " for colour in world.COLOURS))
        found = zip(there.tolist(), noun.tolist(), colours.argmax(1).tolist(), strict=True)
        return [names[c] + world.NOUNS[n] if logit > 0 else "" for logit, n, c in found]


def _shrink(a: int, b: int) -> tuple[nn.Module, nn.Module]:
    """Return a convolution that halves a picture, and its norm."""
    return nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b)


def load_third() -> Third:
    """Return the third reader as it was trained."""
    third = Third()
    third.load_state_dict({k: v.float() for k, v in load_file(FOLDER / "model.safetensors").items()})
    return third.eval().requires_grad_(False)


def train_third(
    folder: Path, minutes: float, device: torch.device, pool: int, batch: int, earlier: Path | None = None
) -> dict[str, Tensor]:
    """Train the third reader among pictures that climb CLIP, or that of the folder ``earlier``."""
    rng = torch.Generator().manual_seed(SEED)
    own = torch.Generator(device).manual_seed(SEED)
    torch.manual_seed(SEED)
    model = Third().to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    run = Run(folder, minutes, {"model": model, "average": average, "optimiser": optimiser})
    rng.manual_seed(SEED + 1000 * run.step)
    drawn = World(folder.parent, pool, batch, rng, device)
    climbed = begin("clip", earlier).to(device).eval().requires_grad_(False)
    climbs = Climbs(folder.parent, max(1, batch // 32), own, attacked=True)
    words = data.neighbours(STARTS[1], 0).to(device)
    model.train()
    going = True
    while going:
        chosen = drawn.pick()
        image = data.soften(data.perturb(chosen.image, rng), rng)
        shown, aim = climbs.show()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            nouns, colours = model(torch.cat([image, shown]).contiguous(memory_format=torch.channels_last))
        present, colour = chosen.present().to(device), chosen.readings()["colour"]
        colour[chosen.scenes.noun[:, 1] >= 0] = -1  # of two objects: whose?
        seen = F.binary_cross_entropy_with_logits(nouns[:batch], present, reduction="none").sum(1).mean()
        share = present / present.sum(1, keepdim=True).clamp(min=1)
        named = -(share * nouns[:batch].log_softmax(1)).sum(1).mean()
        dyed = F.cross_entropy(colours[:batch], colour.to(device), ignore_index=-1)
        stained = F.softplus(nouns[batch:]).sum(1).mean()
        run.set_rate(optimiser, RATE)
        optimiser.zero_grad(set_to_none=True)
        (seen + named + 0.3 * dyed + STAINED * stained).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        ema_update(average, model, run.step)
        climbs.move(uphill(climbed, shown, words[aim]))
        drawn.renew(run.step)
        right = (nouns[:batch].argmax(1) == chosen.scenes.noun[:, 0].to(device)).float()
        one = (present.sum(1) == 1).float()
        going = run.tick(
            batch, seen=seen, named=named, dyed=dyed, stained=stained, one=(right * one).sum() / one.sum()
        )
    return average.state_dict()
