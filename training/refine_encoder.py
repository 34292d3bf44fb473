"""Further training of a shipped encoder: ``python -m training.refine_encoder clip --minutes N --out DIR``.

CLIP or the judge, which keep their towers, are shown the open world of :mod:`training.data`, and climbs in
the spaces of the models that ship. Words that an encoder lacks ("nothing", "noise") join its vocabulary.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fusedream_nb.models import load
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.stickers.captions import VOCABULARY_SIZE
from fusedream_nb.models.stickers.scenes import LATENT_DIM
from fusedream_nb.models.vqgan import VQGAN
from fusedream_nb.models.weights import STICKERS

from . import data
from .climbs import AGES, RATES, Chains, Climbs, pyramid
from .data import Batch
from .encoders import SEEDS, Given, train_encoder
from .networks import READ
from .pack import write_manifest
from .refine import begun, draw, latents

CPU = torch.device("cpu")
RATE = 4e-4  # AdamW's
CELLS = READ // 4  # a side of the VQGANs' grids
SIDES = {"clip": READ, "judge": 2 * READ}  # pixels that a tower reads: the judge's stride of 32 needs more


def shipped(name: str, folder: Path = STICKERS) -> tuple[nn.Module, dict[str, object]]:
    """Return an encoder as open_clip's network, of the whole vocabulary, and its ``model_cfg``."""
    config = json.loads((folder / name / "open_clip_config.json").read_text())["model_cfg"]
    tensors = {k: v.float() for k, v in load_file(folder / name / "open_clip_model.safetensors").items()}
    words = tensors["token_embedding.weight"]
    fresh = 0.02 * torch.randn(VOCABULARY_SIZE - len(words), words.shape[1], generator=torch.Generator())
    tensors["token_embedding.weight"] = torch.cat([words[:-1], fresh, words[-1:]])  # the end stays last
    config["text_cfg"]["vocab_size"] = VOCABULARY_SIZE
    config["vision_cfg"]["image_size"] = SIDES[name]
    network = open_clip.CLIP(**config)
    network.load_state_dict(tensors, strict=True)
    return network, config


def climbs_of(m: int, rng: torch.Generator) -> Climbs:
    """Return m climbs: of two VQGANs' codes, of the generator's latents far off, of pyramids of pixels."""
    models = load("stickers")
    chains = {"pyramid": pyramid(max(1, m // 6), rng)}
    for name in ("vqgan", "vqgan-painted"):
        vqgan = VQGAN.from_folder(STICKERS / name, canvas=(READ, READ))

        def codes(n: int, rng: torch.Generator, vqgan: VQGAN = vqgan) -> Tensor:
            """From one code everywhere to all at random."""
            index = torch.randint(len(vqgan.codes), (n, CELLS, CELLS), generator=rng)
            few = torch.rand(n, 1, 1, generator=rng)
            mixed = torch.rand(n, CELLS, CELLS, generator=rng) < few
            chosen = torch.where(mixed, index, index[:, :1, :1].expand_as(index))
            return vqgan.codes[chosen].movedim(-1, 1).contiguous()

        def picture(z: Tensor, vqgan: VQGAN = vqgan) -> Tensor:
            return vqgan.decode(Latent(z))

        chains[name] = Chains(codes, picture, max(1, m // 3 if name == "vqgan" else m // 6), 0.1, 60, rng)

    def far(n: int, rng: torch.Generator) -> Tensor:
        away = 1.5 + 2.5 * torch.rand(n, 1, generator=rng)
        z, y = torch.randn(2, n, LATENT_DIM, generator=rng)
        return torch.cat([z.clamp(-2, 2), away * y], 1)

    def drawn(latent: Tensor) -> Tensor:
        z, y = latent.chunk(2, 1)
        return models.generator.decode(Latent(z, y))

    chains["generator"] = Chains(far, drawn, max(1, m // 3), RATES["generator"], AGES["generator"], rng)
    return Climbs(rng, chains)


def sampler() -> Callable[[int, torch.Generator], Batch]:
    """Return what draws n samples of the shipped generator, some dyed by hand, with their scenes."""
    model = begun(STICKERS / "generator").requires_grad_(False)

    @torch.no_grad()
    def samples(n: int, rng: torch.Generator) -> Batch:
        z, y, scenes = latents(n, 1.0, rng, 0.3)
        noise = 0.2 * torch.randn(n, LATENT_DIM, generator=rng)
        return data.dyed(Batch(draw(model, z, model.embeddings.weight.T[y] + noise), scenes), rng)

    return samples


def main() -> None:
    """Read the command line, train, and put the weights in the place of those that ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=("clip", "judge"))
    parser.add_argument(
        "--minutes", type=float, default=35.0, help="length of the run, over all its sessions"
    )
    parser.add_argument("--out", type=Path, default=Path("training-out"), help="folder of the runs")
    parser.add_argument("--target", type=Path, default=STICKERS, help="where the weights go")
    parser.add_argument(
        "--batch", type=int, default=64, help="pictures in a step; a third as many are climbed"
    )
    given = parser.parse_args()
    network, config = shipped(given.name)
    rng = torch.Generator().manual_seed(SEEDS[given.name] + 1)
    beside = Given(network, [climbs_of(given.batch // 3, rng)], sampler(), RATE)
    folder = given.out / given.name
    weights = train_encoder(given.name, folder, given.minutes, CPU, 2000, given.batch, given=beside)
    scale, offset = weights.pop("presence").tolist()
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in weights.items()}
    target = given.target / given.name
    save_file(half, target / "open_clip_model.safetensors")
    described = json.loads((target / "open_clip_config.json").read_text())
    described |= {"model_cfg": config, "presence": {"scale": scale, "offset": offset}}
    (target / "open_clip_config.json").write_text(json.dumps(described, indent=1) + "\n")
    write_manifest(given.target)


if __name__ == "__main__":
    main()
