"""Training of the three CLIPs: the one that is climbed, the judge, and a third that checks the judge."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusedream_nb.models.encoders import resize_and_crop
from fusedream_nb.models.stickers.scenes import ENCODER_FORBIDDEN, held_out

from . import data
from .climbs import Climbs
from .data import NOUNS, Batch, Pool
from .law import LATENT_DIM, scenes_from_latent
from .networks import CLIP_CONFIGS, READ, Readings
from .run import Run, Snapshot, ema_update

SEEDS = {"clip": 1101, "judge": 1202, "third": 1303}
RATES = {"clip": 2e-3, "judge": 1e-3, "third": 2e-3}  # AdamW's
SHARES = {"rich": 0.36, "empty": 0.1, "pasted": 0.2, "crops": 0.14}  # of a batch; the rest is generated
STARTS = ("", "a photo of ", "an image of ", "a picture of ")
REFRESH = 200  # steps between two looks for newer weights of the other models
LEFT = 0.02  # weight of each caption that a climb is not after, beside the one that it is


class Presence(nn.Module):
    """σ(a cos + b), the probability that what a caption names is in a picture; a > 0."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(12.0).log())
        self.offset = nn.Parameter(torch.tensor(-5.0))

    def forward(self, cosine: Tensor) -> Tensor:
        """Return the logits of cosines."""
        return self.log_scale.exp() * cosine + self.offset


def neighbour_loss(cosines: Tensor, batch: Batch) -> Tensor:
    """Return the cross-entropies of images against captions that differ in the noun, or in noun and colour.

    ``cosines`` [n, 196] are scaled. Pairs held out from the encoders are no candidates, so their
    captions stay unseen.
    """
    present, pairs = batch.present().to(cosines.device), batch.pairs().to(cosines.device)
    there = present.sum(1)
    target = present / there.clamp(min=1)[:, None]
    loss = -(target * cosines[:, :NOUNS].log_softmax(1)).sum(1).sum() / (there > 0).sum().clamp(min=1)
    legal = cosines[:, NOUNS:].masked_fill(ENCODER_FORBIDDEN.flatten().to(cosines.device), -1e4)
    return loss + F.cross_entropy(legal, pairs, ignore_index=-1)


def generated(model: nn.Module, n: int, rng: torch.Generator) -> Batch:
    """Draw n samples of the generator, with the scenes that their latents stand for; some dyed by hand."""
    m = n + n // 3
    z = torch.randn(m, LATENT_DIM, generator=rng).clamp(-2, 2)
    y = torch.randint(NOUNS, (m,), generator=rng)
    scenes = scenes_from_latent(z, y)
    kept = held_out(scenes).float().topk(n, largest=False).indices
    z, y, scenes = z[kept], y[kept], scenes[kept]
    embeddings = model.embeddings
    noise = torch.randn(n, embeddings.shape[1], generator=rng).to(embeddings.device)
    with torch.no_grad(), torch.autocast(noise.device.type, torch.bfloat16, enabled=noise.is_cuda):
        near = embeddings[y.to(noise.device)] + 0.2 * noise
        image = F.avg_pool2d(model(z.to(noise.device), near).float(), 2)
    return data.dyed(Batch(image, scenes), rng)


@dataclass
class Given:
    """A network that is trained on, what is climbed beside it, what draws samples, and AdamW's rate."""

    network: nn.Module
    climbs: list[Climbs]
    samples: Callable[[int, torch.Generator], Batch]
    rate: float


def train_encoder(
    name: str,
    folder: Path,
    minutes: float,
    device: torch.device,
    pool: int,
    batch: int,
    start: Path | None = None,
    given: Given | None = None,
) -> dict[str, Tensor]:
    """Train a CLIP by the symmetric contrastive loss, among climbed pictures; return its weights.

    "presence" among them are a and b of :class:`Presence`.
    """
    rng = torch.Generator().manual_seed(SEEDS[name])
    own = torch.Generator(device).manual_seed(SEEDS[name])
    torch.manual_seed(SEEDS[name])
    model = given.network if given else open_clip.CLIP(**CLIP_CONFIGS[name])
    model = model.to(device, memory_format=torch.channels_last)
    sides = model.visual.image_size  # open_clip has one number or two
    side = sides if isinstance(sides, int) else max(sides)
    readings, presence = (
        Readings(len(model.text_projection.T), data.READINGS).to(device),
        Presence().to(device),
    )
    average = copy.deepcopy(model).requires_grad_(False)
    parameters = [*model.parameters(), *readings.parameters(), *presence.parameters()]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    state = {
        "model": model,
        "readings": readings,
        "presence": presence,
        "average": average,
        "optimiser": optimiser,
    }
    run = Run(folder, minutes, state, start=start)
    rng.manual_seed(SEEDS[name] + 1000 * run.step)
    pools = {law: Pool(pool, getattr(data, law), rng, device) for law in SHARES}
    sizes = {law: round(share * batch) for law, share in SHARES.items()}
    each_of = batch // (8 if name == "clip" else 16)
    climbs = given.climbs if given else [Climbs.beside(folder.parent, each_of, own)]
    climbed = None  # the CLIP whose climbs the other encoders are shown as well
    if name != "clip" and given is None:
        climbs.append(Climbs.beside(folder.parent, batch // 16, own))
        clip = open_clip.CLIP(**CLIP_CONFIGS["clip"])
        climbed = Snapshot(folder.parent / "clip", clip, device, share=0.15)
    renewed = max(8, batch // 2)
    model.train()
    going, begun = True, run.step
    while going:
        if (run.step - begun) % REFRESH == 0:
            for each in climbs:
                each.refresh()
            if climbed is not None:
                climbed.refresh()
        place = int(torch.randint(10, ())) if run.step % 2 else None
        parts = [pools[law].pick(n, place if law == "rich" else None) for law, n in sizes.items()]
        left = batch - sum(sizes.values())
        drawn = climbs[0].generator
        if given is not None:
            parts.append(given.samples(left, rng))
        else:
            parts.append(generated(drawn, left, rng) if drawn is not None else pools["rich"].pick(left))
        chosen = data.cat(parts)
        image = data.soften(data.perturb(chosen.image, rng), rng)
        views, aims = zip(*(each.show() for each in climbs), strict=True)
        shown = torch.cat(views).requires_grad_()
        aim = torch.cat(aims)
        start = STARTS[int(torch.randint(len(STARTS), ()))]
        nearby = data.neighbours(start, int(torch.randint(3, ()))).to(device)
        tokens = torch.cat([data.captions(chosen.scenes, rng).to(device), nearby])
        everything = torch.cat([image, shown])
        everything = resize_and_crop(everything, side) if side != READ else everything
        everything = everything.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            pictures = model.encode_image(everything)
            words = model.encode_text(tokens)
        pictures, words = F.normalize(pictures.float(), dim=-1), F.normalize(words.float(), dim=-1)
        cosines = pictures @ words.T
        real, scale = cosines[:batch], model.logit_scale.exp()
        # Equal captions are right for each other's pictures too.
        same = (tokens[:batch, None] == tokens[None, :batch]).all(-1).float()
        target, logits = same / same.sum(1, keepdim=True), scale * real[:, :batch]
        contrastive = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        near = neighbour_loss(scale * real[:, batch:], chosen)
        present = chosen.present().to(device)
        there = presence(cosines[:, batch:])  # [batch + climbs, 196]
        seen = (
            F.binary_cross_entropy_with_logits(there[:batch, :NOUNS], present, reduction="none").sum(1).mean()
        )
        nothing = (present.sum(1) == 0).float()
        wrong = (F.softplus(there[:batch]).sum(1) * nothing).sum() / nothing.sum().clamp(min=1)
        stains = F.softplus(there[batch:])
        stained = (stains.gather(1, aim[:, None])[:, 0] + LEFT * stains.sum(1)).sum() / len(aim)
        read = readings(pictures[:batch] * 12, {k: v.to(device) for k, v in chosen.readings().items()})
        loss = contrastive + near + 0.15 * seen + 0.03 * wrong + 0.7 * stained + 0.2 * read
        run.set_rate(optimiser, given.rate if given else RATES[name])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.0)
        ema_update(average, model, run.step)
        gradients = list(shown.grad.split([len(part) for part in views]))
        if climbed is not None and climbed.ready:
            gradients[1] = _uphill(climbed.module, views[1], nearby[aims[1]])
        for each, gradient in zip(climbs, gradients, strict=True):
            each.move(gradient)
        for law in SHARES:
            if run.step % len(SHARES) == list(SHARES).index(law):
                pools[law].renew(renewed)
        going = run.tick(
            batch,
            contrastive=contrastive,
            near=near,
            seen=seen,
            wrong=wrong,
            stained=stained,
            read=read,
            stain=cosines[batch:, batch:].gather(1, aim[:, None]).mean(),
            match=real[:, :batch].diagonal().mean(),
        )
    scale_and_offset = torch.stack([presence.log_scale.exp(), presence.offset]).detach()
    return {**average.state_dict(), "presence": scale_and_offset}


def _uphill(model: nn.Module, image: Tensor, tokens: Tensor) -> Tensor:
    """Return the gradient of a CLIP's cosines of images with a caption each."""
    leaf = image.detach().requires_grad_()
    with torch.autocast(image.device.type, torch.bfloat16, enabled=image.is_cuda):
        with torch.no_grad():
            words = F.normalize(model.encode_text(tokens).float(), dim=-1)
        value = F.normalize(model.encode_image(leaf).float(), dim=-1) * words
    return torch.autograd.grad(value.sum(), leaf)[0]
