"""Training of the two CLIPs, the one that is climbed and the judge, from the weights that ship."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from fusedream_nb.models.encoders import resize_and_crop
from fusedream_nb.models.stickers.scenes import ENCODER_FORBIDDEN, LATENT_DIM
from fusedream_nb.models.weights import STICKERS

from . import data
from .climbs import COPIES, Climbs
from .data import NOUNS, Batch, Pool
from .generator import begun, draw, latents
from .networks import READ, Readings
from .run import Run, Snapshot, ema_update

SEEDS = {"clip": 1101, "judge": 1202}
RATES = {"cpu": 4e-4, "cuda": 1e-3}  # AdamW's, for batches of 64 and of 512
STARTS = ("", "a photo of ", "an image of ", "a picture of ")
REFRESH = 200  # steps between two looks for newer weights of the other models
LEFT = 0.02  # weight of each caption that a climb is not after, beside the one that it is


def configured(name: str) -> dict[str, Any]:
    """Return the ``model_cfg`` of the encoder that ships."""
    config: dict[str, Any] = json.loads((STICKERS / name / "open_clip_config.json").read_text())["model_cfg"]
    return config


def begin(name: str, earlier: Path | None = None) -> nn.Module:
    """Return an encoder as open_clip's network, with the weights of a folder or those that ship."""
    network = open_clip.CLIP(**configured(name))
    tensors = load_file((earlier or STICKERS / name) / "open_clip_model.safetensors")
    # Earlier vocabularies were smaller; their last word, the end, stays the last.
    table, words = tensors["token_embedding.weight"], network.token_embedding.weight.data
    words[: len(table) - 1], words[-1] = table[:-1], table[-1]
    tensors["token_embedding.weight"] = words
    network.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=True)
    return network


class World:
    """Batches of the open world: pictures of four laws, drawn ahead, and of the generator, some dyed by hand.

    The generator is the one that ships, until a run of it has better weights (``generator.refresh``).
    """

    SHARES = {"rich": 0.38, "empty": 0.08, "pasted": 0.22, "crops": 0.12}  # of a batch; the rest is generated

    def __init__(
        self,
        runs: Path,
        pool: int,
        batch: int,
        rng: torch.Generator,
        device: torch.device,
        shares: Mapping[str, float] = SHARES,
    ) -> None:
        self.batch, self.rng, self.device, self.shares = batch, rng, device, shares
        self.generator = Snapshot(runs / "generator", begun(STICKERS / "generator"), device, share=0.3)
        self.pools = {law: Pool(pool, getattr(data, law), rng, device) for law in shares}

    def pick(self, place: int | None = None) -> Batch:
        """Pick a batch; with a ``place``, the scenes of the rich world are all in that one."""
        sizes = {law: round(share * self.batch) for law, share in self.shares.items()}
        parts = [self.pools[law].pick(n, place if law == "rich" else None) for law, n in sizes.items()]
        return data.cat([*parts, self._generated(self.batch - sum(sizes.values()))])

    def renew(self, step: int) -> None:
        """Draw a part of one law's pictures anew, of another law at each step."""
        laws = list(self.pools.values())
        laws[step % len(laws)].renew(max(8, self.batch // 2))

    @torch.no_grad()
    def _generated(self, n: int) -> Batch:
        z, y, scenes = latents(n, 1.0, self.rng, 0.3)
        noise = 0.2 * torch.randn(n, LATENT_DIM, generator=self.rng).to(self.device)
        near = self.generator.module.embeddings.weight.T[y.to(self.device)] + noise
        return data.dyed(Batch(draw(self.generator.module, z.to(self.device), near), scenes), self.rng)


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


def train_encoder(
    name: str,
    folder: Path,
    minutes: float,
    device: torch.device,
    pool: int,
    batch: int,
    earlier: Path | None = None,
) -> dict[str, Tensor]:
    """Train a CLIP by the symmetric contrastive loss, among climbed pictures; return its weights.

    "presence" among them are a and b of :class:`Presence`. Beside the encoder itself, the CLIP of the folder
    ``earlier`` is climbed, or the one that ships.
    """
    rng = torch.Generator().manual_seed(SEEDS[name])
    own = torch.Generator(device).manual_seed(SEEDS[name])
    torch.manual_seed(SEEDS[name])
    model = begin(name).to(device, memory_format=torch.channels_last)
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
    run = Run(folder, minutes, state)
    rng.manual_seed(SEEDS[name] + 1000 * run.step)
    world = World(folder.parent, pool, batch, rng, device)
    # Climbs follow the encoder itself, an earlier CLIP, and the one in training, as many each.
    others, watched = [begin("clip", earlier).to(device).eval().requires_grad_(False)], [world.generator]
    if name != "clip":
        watched.append(Snapshot(folder.parent / "clip", begin("clip"), device, share=0.15))
        others.append(watched[-1].module)
    m = max(4, batch // 24)
    # CLIP stays open to attacks on pixels, as the papers' is.
    climbs = Climbs(folder.parent, m * (1 + len(others)), own, attacked=name != "clip")
    watched += climbs.watched
    model.train()
    going, first = True, run.step
    while going:
        if (run.step - first) % REFRESH == 0:
            for each in watched:
                each.refresh()
        chosen = world.pick(int(torch.randint(10, ())) if run.step % 2 else None)
        image = data.soften(data.perturb(chosen.image, rng), rng)
        shown, aim = climbs.show()
        shown.requires_grad_()
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
        run.set_rate(optimiser, RATES[device.type])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.0)
        ema_update(average, model, run.step)
        gradient = shown.grad
        for i, other in enumerate(others, 1):
            rows = slice(i * m * (1 + COPIES), (i + 1) * m * (1 + COPIES))
            gradient[rows] = uphill(other, shown.detach()[rows], nearby[aim[rows]])
        climbs.move(gradient)
        world.renew(run.step)
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


def uphill(model: nn.Module, image: Tensor, tokens: Tensor) -> Tensor:
    """Return the gradient of a CLIP's cosines of images with a caption each."""
    leaf = image.detach().requires_grad_()
    with torch.autocast(image.device.type, torch.bfloat16, enabled=image.is_cuda):
        with torch.no_grad():
            words = F.normalize(model.encode_text(tokens).float(), dim=-1)
        value = F.normalize(model.encode_image(leaf).float(), dim=-1) * words
    return torch.autograd.grad(value.sum(), leaf)[0]
