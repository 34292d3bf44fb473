"""Two readers of pictures, and how they are trained: the judge's presence, and a third that checks the judge.

Neither has words: they name the nouns in a picture, and the third also the colour of the first. They share
no picture with CLIP, the judge's cosines, or each other. The presence goes on from what ships; the third,
which does not ship, begins with random weights, and only the report card and the benchmarks ask it.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from fusedream_nb.models.encoders import PRESENCE
from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.presence import SIZES, Presence, load_presence
from fusedream_nb.models.weights import STICKERS

from . import data
from .climbs import Climbs
from .data import COLOURS, NOUNS
from .encoders import STARTS, World, begin, uphill
from .run import Run, ema_update

FOLDER = Path(__file__).with_name("third")
SEEDS = {"third": 1303, "presence": 2707}
RATES = {"third": 2e-3, "presence": 1e-3}  # AdamW's
STAINED = 0.5  # weight of climbed pictures, in which nothing is to be seen
PASTED = {"rich": 0.22, "empty": 0.08, "pasted": 0.5, "crops": 0.08}  # shares of what presence is shown


class Third(Presence):
    """A reader of nouns and of a colour: pictures [n, 3, h, w] in [-1, 1] → logits [n, 28 + 7].

    The last seven are of the first noun's colour, natural to begin with, as seen where that noun is.
    """

    def __init__(self) -> None:
        super().__init__((24, 48, 96, 192), (2, 2, 2), NOUNS + COLOURS + 1)

    def forward(self, image: Tensor, size: int = SIZES[0]) -> Tensor:
        """Return the logits of nouns, then of colours."""
        nouns, colours = self.cells(image, size).split([NOUNS, COLOURS + 1], 1)
        there = nouns.logsumexp(2)
        seen = nouns.gather(1, there.argmax(1)[:, None, None].expand(-1, 1, nouns.shape[2])).softmax(2)
        return torch.cat([there, (colours * seen).sum(2)], 1)

    def top(self, image: Tensor, n: int) -> list[list[str]]:
        """Return the n likeliest nouns of each picture, the likeliest first."""
        return [[world.NOUNS[i] for i in row] for row in self.read(image)[:, :NOUNS].topk(n).indices.tolist()]

    def words(self, image: Tensor) -> list[str]:
        """Return "colour noun" of each picture, "noun" of a natural colour, "" where it sees none."""
        nouns, colours = self.read(image).split([NOUNS, COLOURS + 1], 1)
        there, noun = nouns.max(1)
        names = ("", *(f"{colour} " for colour in world.COLOURS))
        found = zip(there.tolist(), noun.tolist(), colours.argmax(1).tolist(), strict=True)
        return [names[c] + world.NOUNS[n] if logit > 0 else "" for logit, n, c in found]


def load_third() -> Third:
    """Return the third reader, whose weights do not ship; FileNotFoundError where it was not trained."""
    if not (FOLDER / "model.safetensors").exists():
        raise FileNotFoundError(
            f"The third reader is not in {FOLDER}; train it by "
            "python -m training third --minutes 34 --out RUNS and python -m training.pack RUNS third."
        )
    third = Third()
    third.load_state_dict({k: v.float() for k, v in load_file(FOLDER / "model.safetensors").items()})
    return third.eval().requires_grad_(False)


def train_reader(
    name: str,
    folder: Path,
    minutes: float,
    device: torch.device,
    pool: int,
    batch: int,
    earlier: Path | None = None,
) -> dict[str, Tensor]:
    """Train a reader among pictures that climb CLIP, or the folder ``earlier``'s; return its weights."""
    rng = torch.Generator().manual_seed(SEEDS[name])
    own = torch.Generator(device).manual_seed(SEEDS[name])
    torch.manual_seed(SEEDS[name])
    if name == "third":
        model: Presence = Third()
        nn.init.constant_(model.votes.bias, -7.0)  # few cells see a noun at first
    else:
        model = load_presence(STICKERS / "judge" / PRESENCE).requires_grad_(True)
    model = model.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    run = Run(folder, minutes, {"model": model, "average": average, "optimiser": optimiser})
    rng.manual_seed(SEEDS[name] + 1000 * run.step)
    shares = World.SHARES if name == "third" else PASTED
    drawn = World(folder.parent, pool, batch, rng, device, shares)
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
            pictures = torch.cat([image, shown])
            pictures = pictures.flip(-1) if torch.rand(()) < 0.5 else pictures
            size = SIZES[int(torch.rand(()) < 0.5)]
            read = model(pictures.contiguous(memory_format=torch.channels_last), size)
        nouns, present = read[:, :NOUNS], chosen.present().to(device)
        share = present / present.sum(1, keepdim=True).clamp(min=1)
        named = -(share * nouns[:batch].log_softmax(1)).sum(1).mean()
        seen = F.binary_cross_entropy_with_logits(nouns[:batch], present, reduction="none").sum(1).mean()
        stained = F.softplus(nouns[batch:]).sum(1).mean()
        loss = seen + named + STAINED * stained
        if name == "third":
            colour = chosen.readings()["colour"]
            colour[chosen.scenes.noun[:, 1] >= 0] = -1  # of two objects: whose?
            loss = loss + 0.3 * F.cross_entropy(read[:batch, NOUNS:], colour.to(device), ignore_index=-1)
        run.set_rate(optimiser, RATES[name])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        ema_update(average, model, run.step)
        climbs.move(uphill(climbed, shown, words[aim]))
        drawn.renew(run.step)
        two = present.sum(1) == 2
        top = torch.zeros_like(present).scatter(1, nouns[:batch].topk(2).indices, 1.0)
        both = (top == present).all(1)[two].float().mean()
        going = run.tick(batch, seen=seen, named=named, stained=stained, both=both)
    return average.state_dict()
