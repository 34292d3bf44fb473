"""What the encoders are shown: scenes, empty ones, pasted ones, crops, and their captions.

Scenes and captions live on the CPU, pictures on the device that trains, so a GPU never waits for an answer.

The world that an encoder sees must be open: pictures without an object, with a box pasted on them, with a
part of an object only. What is not there is as much a lesson as what is (see docs/models.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_nb.models.stickers import nouns as world
from fusedream_nb.models.stickers.captions import CONTEXT_LENGTH, PAD, START, WordTokenizer, article, split
from fusedream_nb.models.stickers.scenes import ENCODER_FORBIDDEN, Scenes, sample_scenes
from fusedream_nb.models.stickers.world import render, tint

from .networks import READ

NOUNS, COLOURS = len(world.NOUNS), len(world.COLOURS)
TOKENIZER = WordTokenizer()
FORMLESS = -2  # the background of a picture that shows no place either


@dataclass(frozen=True)
class Batch:
    """Pictures [n, 3, 64, 64] in [-1, 1] on a device; on the CPU the scenes that their captions describe."""

    image: Tensor
    scenes: Scenes

    def present(self) -> Tensor:
        """Return which nouns are there [n, 28], as 0 and 1."""
        noun = self.scenes.noun
        return (F.one_hot(noun.clamp(min=0), NOUNS) * (noun >= 0)[..., None]).amax(1).float()

    def pairs(self) -> Tensor:
        """Return colour · 28 + noun [n] of the pictures of one dyed object, -1 for the others."""
        noun, colour = self.scenes.noun, self.scenes.colour[:, 0]
        single = (noun[:, 0] >= 0) & (noun[:, 1] < 0) & (colour >= 0)
        return torch.where(single, colour * NOUNS + noun[:, 0], -1)

    def readings(self) -> dict[str, Tensor]:
        """Return the targets of the auxiliary readings; -1 where there is nothing to read."""
        scenes = self.scenes
        there = scenes.noun[:, 0] >= 0
        return {
            "noun": self.present(),
            "colour": torch.where(there, scenes.colour[:, 0] + 1, -1),
            "background": scenes.background.clamp(min=-1),
            "style": scenes.style,
            "effect": torch.where(there, scenes.effect, -1),
        }


READINGS = {
    "noun": NOUNS,
    "colour": COLOURS + 1,
    "background": len(world.BACKGROUNDS),
    "style": len(world.STYLES),
    "effect": len(world.EFFECTS),
}


def cat(batches: Sequence[Batch]) -> Batch:
    """Join batches."""
    columns = {f.name: torch.cat([getattr(b.scenes, f.name) for b in batches]) for f in fields(Scenes)}
    return Batch(torch.cat([b.image for b in batches]), Scenes(**columns))


Law = Callable[[int, torch.Generator, torch.device], Batch]


class Pool:
    """Pictures of a law, as uint8, drawn ahead and renewed a few at a time."""

    def __init__(self, n: int, law: Law, rng: torch.Generator, device: torch.device) -> None:
        self.law, self.rng, self.device, self._next = law, rng, device, 0
        drawn = cat([law(min(256, n - i), rng, device) for i in range(0, n, 256)])
        self.scenes, self.bytes = drawn.scenes, _bytes(drawn.image)

    def renew(self, n: int) -> None:
        """Put n fresh pictures in the place of the oldest ones."""
        rows = (torch.arange(n) + self._next) % len(self.bytes)
        self._next = (self._next + n) % len(self.bytes)
        fresh = self.law(n, self.rng, self.device)
        for field in fields(Scenes):
            getattr(self.scenes, field.name)[rows] = getattr(fresh.scenes, field.name)
        self.bytes[rows.to(self.device)] = _bytes(fresh.image)

    def pick(self, n: int, place: int | None = None) -> Batch:
        """Pick n pictures, of one background if so asked: then only the objects tell them apart."""
        if place is None:
            rows = torch.randint(len(self.bytes), (n,), generator=self.rng)
        else:
            likely = torch.where(self.scenes.background == place, 1.0, 1e-6)
            rows = torch.multinomial(likely, n, generator=self.rng)
        return Batch(self.bytes[rows.to(self.device)].float() / 127.5 - 1, self.scenes[rows])


def _bytes(image: Tensor) -> Tensor:
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte()


def _uniform(n: int, rng: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=rng)


def _scenes(n: int, rng: torch.Generator) -> Scenes:
    return sample_scenes(n, rng, two=0.5, smallest=0.3)


def rich(n: int, rng: torch.Generator, device: torch.device) -> Batch:
    """Draw scenes of the rich world, half of them with two objects."""
    scenes = _scenes(n, rng)
    return Batch(render(scenes, READ, device=device), scenes)


def photos(n: int, rng: torch.Generator) -> Scenes:
    """Draw about n photos of one object without effects."""
    scenes = sample_scenes(3 * n, rng)
    plain = (scenes.noun[:, 1] < 0) & (scenes.style == 0) & (scenes.effect == 0)
    return scenes[plain.nonzero()[:n, 0]]


def empty(n: int, rng: torch.Generator, device: torch.device) -> Batch:
    """Draw pictures without an object: two thirds empty places, the others without a place either."""
    scenes = sample_scenes(n, rng)
    nothing = torch.full_like(scenes.noun, -1)
    scenes = replace(
        scenes,
        noun=nothing,
        colour=nothing,
        effect=torch.zeros_like(scenes.effect),
        relation=nothing[:, 0],
        style=torch.where(_uniform(n, rng) < 0.8, 0, scenes.style),
    )
    image = render(scenes, READ, device=device)
    formless = _uniform(n, rng) < 1 / 3
    image[formless.nonzero()[:, 0].to(device)] = _formless(int(formless.sum()), rng, device)
    background = torch.where(formless, FORMLESS, scenes.background)
    return Batch(image, replace(scenes, background=background, style=torch.where(formless, 0, scenes.style)))


def _formless(n: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Draw noise of all scales, blots of one scale, and gradients [n, 3, 64, 64]."""
    own = torch.Generator(device).manual_seed(int(torch.randint(2**31, (), generator=rng)))
    image = torch.zeros(n, 3, READ, READ, device=device)
    for side in (1, 2, 4, 8, 16, 32, 64):
        grid = torch.randn(n, 3, side, side, generator=own, device=device)
        strength = (_uniform(n, rng).pow(3) * 1.6)[:, None, None, None].to(device)
        image += strength * F.interpolate(grid, size=(READ, READ), mode="bilinear", align_corners=False)
    return image.tanh()


def pasted(
    n: int, rng: torch.Generator, device: torch.device, sides: tuple[float, float] = (0.35, 0.7)
) -> Batch:
    """Draw scenes on which a box with another scene is pasted, seams and all, as compositions make them.

    Of twice as many candidates those stay in which most of the object behind the box is seen. ``sides``
    bounds the box's side, as a share of the picture's.
    """
    m = 2 * n
    front, behind = _single(m, rng), _single(m, rng)
    behind = replace(behind, effect=torch.zeros_like(behind.effect))  # captions name the first object's alone
    share = _uniform(m, rng, *sides)
    free = 1 - share
    x, y = (free * _uniform(m, rng, -1, 1) for _ in "xy")
    snap = _uniform(m, rng) < 0.6  # the nine places of the paper
    x = torch.where(snap, (x / free * 1.5).round().clamp(-1, 1) * free, x)
    y = torch.where(snap, (y / free * 1.5).round().clamp(-1, 1) * free, y)
    seen = 1 - _overlap(behind.place[:, 0], torch.stack([x, y, share], 1))
    kept = (seen.clamp(max=0.45) + 1e-3 * _uniform(m, rng)).topk(n).indices
    front, behind, x, y, share = front[kept], behind[kept], x[kept], y[kept], share[kept]
    small, image = (render(each, READ, device=device) for each in (front, behind))
    zero = torch.zeros_like(x)
    theta = torch.stack(
        [torch.stack([1 / share, zero, -x / share], -1), torch.stack([zero, 1 / share, -y / share], -1)], 1
    )
    grid = F.affine_grid(theta.to(device), [n, 3, READ, READ], align_corners=False)
    inside = (grid.abs() <= 1).all(-1)[:, None].float()
    soft = F.avg_pool2d(small, 2)
    large = (share > 0.6)[:, None, None, None].to(device)
    small = torch.where(large, small, F.interpolate(soft, scale_factor=2.0, mode="bilinear"))
    image = torch.lerp(image, F.grid_sample(small, grid, align_corners=False, padding_mode="border"), inside)
    dx, dy = x - behind.place[:, 0, 0], y - behind.place[:, 0, 1]
    upright = (dy.abs() > 0.4) & (dy.abs() > dx.abs() * 0.8)
    over = torch.where(_uniform(n, rng) < 0.5, 1, 2)  # on top of, above
    relation = torch.where(upright, torch.where(dy < 0, over, 3), 0)
    both = {
        name: torch.stack([getattr(front, name)[:, 0], getattr(behind, name)[:, 0]], 1)
        for name in ("noun", "colour", "hue", "strength", "sprite", "place")
    }
    return Batch(
        image, replace(behind, **both, effect=front.effect, relation=relation, style=front.style * 0)
    )


def _single(n: int, rng: torch.Generator) -> Scenes:
    """Draw photos of one object."""
    scenes = sample_scenes(n, rng)
    noun, place = scenes.noun.clone(), scenes.place.clone()
    noun[:, 1] = -1
    scale = _uniform(n, rng, 0.6, 0.95)
    reach = (1.05 - scale).clamp(min=0)[:, None]
    xy = reach * torch.stack([_uniform(n, rng, -1, 1), _uniform(n, rng, -1, 1)], 1)
    place[:, 0, :3] = torch.cat([xy, scale[:, None]], 1)
    return replace(scenes, noun=noun, place=place, style=torch.zeros_like(scenes.style), relation=noun[:, 1])


def _overlap(object_: Tensor, box: Tensor) -> Tensor:
    """Return which share [n] of objects (x, y, scale, …) [n, ≥3] lies in boxes (x, y, half side) [n, 3]."""
    reach = 0.8 * object_[:, 2:3]  # a sprite does not fill its cell
    low = torch.maximum(object_[:, :2] - reach, box[:, :2] - box[:, 2:3])
    high = torch.minimum(object_[:, :2] + reach, box[:, :2] + box[:, 2:3])
    return (high - low).clamp(min=0).prod(1) / (2 * reach[:, 0]).square()


def crops(n: int, rng: torch.Generator, device: torch.device) -> Batch:
    """Draw enlarged parts of scenes; what is mostly in the part is there, what hardly is, is not.

    Of twice as many candidates those stay in which no object is cut in the middle.
    """
    m = 2 * n
    scenes = _scenes(m, rng)
    half = _uniform(m, rng, 0.25, 0.75)
    aimed = scenes.place[:, 0, :2] + 0.3 * (torch.rand(m, 2, generator=rng) - 0.5)
    anywhere = torch.stack([_uniform(m, rng, -1, 1), _uniform(m, rng, -1, 1)], 1)
    centre = torch.where((_uniform(m, rng) < 0.6)[:, None], aimed, anywhere)
    limit = (1 - half)[:, None]
    centre = torch.minimum(torch.maximum(centre, -limit), limit)
    window = torch.cat([centre, half[:, None]], 1)
    seen = torch.stack([_overlap(scenes.place[:, i], window) for i in (0, 1)], 1)
    there = scenes.noun >= 0
    doubt = (there & (seen > 0.1) & (seen < 0.6)).any(1)
    kept = (-doubt.float() + 1e-3 * _uniform(m, rng)).topk(n).indices
    scenes, window, seen, there = scenes[kept], window[kept], seen[kept], there[kept]
    image = render(scenes, 2 * READ, device=device)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = window[:, 2]
    theta[:, :, 2] = window[:, :2]
    grid = F.affine_grid(theta.to(device), [n, 3, READ, READ], align_corners=False)
    image = F.grid_sample(image, grid, align_corners=False, padding_mode="border")
    inside = there & (seen > 0.35)
    first = inside[:, 0]
    order = torch.where(first | ~inside[:, 1], 0, 1)[:, None]
    order = torch.cat([order, 1 - order], 1)
    moved = {name: getattr(scenes, name).gather(1, order) for name in ("noun", "colour", "hue", "strength")}
    left = inside.gather(1, order)
    moved["noun"] = torch.where(left, moved["noun"], -1)
    moved["colour"] = torch.where(left, moved["colour"], -1)
    alone = (moved["noun"] < 0).any(1)
    scenes = replace(
        scenes,
        **moved,
        effect=torch.where(first, scenes.effect, 0),
        relation=torch.where(alone, -1, scenes.relation),
    )
    return Batch(image, scenes)


def dyed(batch: Batch, rng: torch.Generator, share: float = 0.4) -> Batch:
    """Dye some whole pictures, as by hand; the caption then names that colour, and no place."""
    n = len(batch.image)
    colour = torch.randint(COLOURS, (n,), generator=rng)
    scenes = batch.scenes
    noun = scenes.noun[:, 0]
    legal = (noun >= 0) & ~ENCODER_FORBIDDEN[colour, noun.clamp(min=0)]
    chosen = (_uniform(n, rng) < share) & legal
    hues = torch.tensor(list(world.HUES.values()))[colour] + _uniform(n, rng, -12, 12)
    strength = _uniform(n, rng, 0.7, 1.0) * chosen
    device = batch.image.device
    tinted = tint(batch.image / 2 + 0.5, hues.to(device), strength.to(device)) * 2 - 1
    image = torch.where(chosen.to(device)[:, None, None, None], tinted.clamp(-1, 1), batch.image)
    named = torch.where(chosen[:, None] & (scenes.noun >= 0), colour[:, None], scenes.colour)
    return Batch(image, replace(scenes, colour=named, background=torch.where(chosen, -1, scenes.background)))


def perturb(image: Tensor, rng: torch.Generator) -> Tensor:
    """Shift by a few pixels, change the light and cut a small hole: what any photo may suffer."""
    n, _, _, side = image.shape
    device = image.device
    reach = side // 16
    shift = torch.randint(-reach, reach + 1, (2,)).tolist()
    image = torch.roll(image, shift, (2, 3)) if torch.rand(()) < 0.5 else image
    light = ((torch.rand(n, 1, 1, 1, generator=rng) - 0.5) * 0.3).to(device)
    centre = torch.randint(side, (n, 2, 1, 1), generator=rng).to(device)
    half = torch.randint(0, side // 5 + 1, (n, 1, 1), generator=rng).to(device)
    axis = torch.arange(side, device=device)
    hole = ((axis.view(1, 1, -1) - centre[:, 0]).abs() < half) & (
        (axis.view(1, -1, 1) - centre[:, 1]).abs() < half
    )
    return (image + light) * (~hole)[:, None]


def blur(image: Tensor, width: Tensor, reach: int = 3) -> Tensor:
    """Blur images [n, c, h, w] by Gaussians of deviations ``width`` [n], cut at ``reach``, both in pixels."""
    apart = torch.arange(-reach, reach + 1).to(image)
    kernel = torch.exp(-(apart**2) / (2 * width[:, None].to(image) ** 2 + 1e-6))
    kernel = kernel / kernel.sum(1, keepdim=True)
    n, c, h, w = image.shape
    flat = F.pad(image, [reach] * 4, mode="replicate").reshape(1, n * c, h + 2 * reach, w + 2 * reach)
    kernel = kernel.repeat_interleave(c, 0)[:, None]
    down = F.conv2d(flat, kernel[..., None], groups=n * c)
    return F.conv2d(down, kernel[:, :, None], groups=n * c).view(n, c, h, w)


def soften(image: Tensor, rng: torch.Generator) -> Tensor:
    """Take the fine detail from a third of the pictures: what a generator draws is soft at first."""
    soft = (torch.rand(len(image), 1, 1, 1, generator=rng) < 1 / 3).to(image.device)
    side = int(torch.randint(image.shape[-1] // 4, image.shape[-1], ()))
    small = F.interpolate(image, (side, side), mode="bilinear", antialias=True)
    blurred = F.interpolate(small, image.shape[-2:], mode="bilinear")
    return torch.where(soft, blurred, image)


# Captions: the grammar of fusedream_nb.models.stickers.captions, as tokens of a whole batch at once.


@cache
def _table(rows: tuple[tuple[str, ...], ...]) -> tuple[Tensor, Tensor]:
    """Return the tokens [rows, phrases, words] of lists of phrases, and how many phrases each has [rows]."""
    ids = [[[TOKENIZER.ids[word] for word in split(phrase)] for phrase in row] for row in rows]
    most, longest = max(map(len, ids)), max(len(p) for row in ids for p in row)
    out = torch.zeros(len(ids), most, longest, dtype=torch.long)
    for i, row in enumerate(ids):
        for j, phrase in enumerate(row):
            out[i, j, : len(phrase)] = torch.tensor(phrase)
    return out, torch.tensor([len(row) for row in ids])


def _choose(rows: Sequence[Sequence[str]], index: Tensor, rng: torch.Generator) -> Tensor:
    """Return the tokens [n, words] of a random phrase of row ``index`` [n]; none where it is negative."""
    table, counts = _table(tuple(tuple(row) for row in rows))
    row = index.clamp(min=0)
    which = (torch.rand(len(index), generator=rng) * counts[row]).long()
    return table[row, which] * (index >= 0)[:, None]


@cache
def _vowels() -> Tensor:
    starts = [False] * (TOKENIZER.end + 1)
    for word, number in TOKENIZER.ids.items():
        starts[number] = word[0] in "aeiou"
    return torch.tensor(starts)


def _named(scenes: Scenes, which: int, rng: torch.Generator) -> Tensor:
    """Return the tokens [n, words] of one object: article, effect, colour, noun."""
    noun = scenes.noun[:, which]
    n = len(noun)

    def sometimes(share: float, index: Tensor) -> Tensor:
        return torch.where(torch.rand(n, generator=rng) < share, index, -1)

    names = [world.SYNONYMS.get(name, (name,)) for name in world.NOUNS]
    colour = torch.where(noun >= 0, scenes.colour[:, which], -1)
    words = [_choose([(c,) for c in world.COLOURS], sometimes(0.75, colour), rng), _choose(names, noun, rng)]
    if which == 0:
        effect = torch.where((scenes.effect > 0) & (noun >= 0), scenes.effect - 1, -1)
        words.insert(0, _choose(list(world.EFFECTS.values())[1:], sometimes(0.95, effect), rng))
    tokens = _packed(torch.cat(words, 1))
    a, an = (TOKENIZER.ids[word] for word in ("a", "an"))
    an_here = torch.where(_vowels()[tokens[:, 0]], an, a)
    with_article = (torch.rand(n, generator=rng) < 0.85) & (tokens[:, 0] > 0)
    return torch.cat([torch.where(with_article, an_here, 0)[:, None], tokens], 1)


def _packed(tokens: Tensor) -> Tensor:
    """Move the gaps (0) of each row [n, words] to its end."""
    return tokens.gather(1, (tokens == 0).long().argsort(dim=1, stable=True))


def captions(scenes: Scenes, rng: torch.Generator) -> Tensor:
    """Return the tokens [n, 20] of captions for scenes, as the tokenizer gives them."""
    noun, n = scenes.noun, len(scenes)
    nothing = torch.where(noun[:, 0] >= 0, -1, torch.where(scenes.background >= 0, 0, 1))
    said = torch.rand(n, generator=rng) < 0.65
    background = torch.where(said | (noun[:, 0] < 0), scenes.background.clamp(min=-1), -1)
    words = [
        _choose(list(world.STYLES.values()), scenes.style, rng),
        _named(scenes, 0, rng),
        _choose([world.NOTHING, world.FORMLESS], nothing, rng),
        _choose(list(world.RELATIONS.values()), torch.where(noun[:, 1] >= 0, scenes.relation, -1), rng),
        _named(scenes, 1, rng),
        _choose(list(world.BACKGROUNDS.values()), background, rng),
    ]
    tokens = _packed(torch.cat(words, 1))[:, : CONTEXT_LENGTH - 2]
    out = torch.full((n, CONTEXT_LENGTH), PAD)
    out[:, 0], out[:, 1 : 1 + tokens.shape[1]] = START, tokens
    return out.scatter(1, (out > 0).sum(1, keepdim=True), TOKENIZER.end)


@cache
def neighbours(start: str, synonym: int) -> Tensor:
    """Return the tokens of 28 captions that differ in the noun, then of 168 in colour and noun."""
    options = [world.SYNONYMS.get(noun, (noun,)) for noun in world.NOUNS]
    names = [words[synonym % len(words)] for words in options]
    names += [f"{colour} {name}" for colour in world.COLOURS for name in names]
    return TOKENIZER([f"{start}{article(name)}" for name in names])
