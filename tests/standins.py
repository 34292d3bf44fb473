"""Random weights in folders that look to the package exactly like the released files, in seconds.

They have the released names, formats, classes, latents, pixels and tokens, but few channels and layers. What
they draw is noise. ``python tests/standins.py FOLDER [NAME…]`` builds them; with ``FUSEDREAM_CACHE=FOLDER``
everything loads them as the real ones.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusedream_nb.evaluation.networks import INCEPTION
from fusedream_nb.models.biggan import SHAPES
from fusedream_nb.models.files import write_tensors
from fusedream_nb.models.weights import CLIP, JUDGE, entry

Tensors = dict[str, Tensor]
ROWS = 50  # of ivclab's statistics: truncations 0.02, 0.04, … 1
TAMING = (128, 128, 256, 256, 512)  # channels: taming's ch = 128 times ch_mult = (1, 1, 2, 2, 4)
CODE = 256  # numbers of a VQGAN's code
DEEP = {  # biggan-deep's blocks: doubled or not, channels before and after; where the attention is
    128: ("0 16 16, 1 16 16, 0 16 16, 1 16 8, 0 8 8, 1 8 4, 0 4 4, 1 4 2, 0 2 2, 1 2 1", 8),
    256: ("0 16 16, 1 16 16, 0 16 16, 1 16 8, 0 8 8, 1 8 8, 0 8 8, 1 8 4, 0 4 4, 1 4 2, 0 2 2, 1 2 1", 8),
}
NARROW_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
NARROW = {  # of an open_clip configuration: few layers and channels, the same pixels, tokens and vectors
    "ViT": {"image_size": 224, "layers": 2, "width": 64},
    "RN": {"image_size": 224, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
}


def seeded(name: str) -> torch.Generator:
    """Return randomness of a name's own, the same in every process."""
    return torch.Generator().manual_seed(sum(name.encode()))


def biggan(rng: torch.Generator, *, size: int = 128, channels: int = 96, classes: int = 1000) -> Tensors:
    """Return a BigGAN as ivclab's release names it; u and v are near the first singular vectors."""
    shape, made = SHAPES[size], Tensors()
    widths = [channels * width for width in shape.widths]
    condition = 128 + shape.chunk

    def normed(name: str, *sides: int, bias: bool = True) -> None:
        weight = torch.randn(sides, generator=rng) / 8
        matrix = weight.permute(0, 2, 3, 1).flatten(1) if len(sides) == 4 else weight
        u = F.normalize(torch.randn(sides[0], generator=rng), dim=0)
        for _ in range(2):
            v = F.normalize(matrix.T @ u, dim=0)
            u = F.normalize(matrix @ v, dim=0)
        made.update({f"{name}.weight_orig": weight, f"{name}.weight_u": u, f"{name}.weight_v": v})
        if bias:
            made[f"{name}.bias"] = torch.randn(sides[0], generator=rng) / 8

    def statistics(name: str, width: int) -> None:
        made[f"{name}.standing_means"] = 0.1 * torch.randn(ROWS, width, generator=rng)
        made[f"{name}.standing_vars"] = 0.5 + torch.rand(ROWS, width, generator=rng)
        made[f"{name}.running_mean"], made[f"{name}.running_var"] = torch.zeros(width), torch.ones(width)
        made[f"{name}.num_batches_tracked"] = torch.tensor(0)

    made["linear.weight"] = torch.randn(classes, 128, generator=rng) / 8
    normed("g_z.g_linear", 16 * widths[0], shape.chunk)
    for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
        block = f"gblock_{i}" if i else "gblock"
        normed(f"{block}.conv0", after, before, 3, 3)
        normed(f"{block}.conv1", after, after, 3, 3)
        normed(f"{block}.conv_sc", after, before, 1, 1)
        for norm, width in (("hyperbn", before), ("hyperbn_1", after)):
            statistics(f"{block}.{norm}.crossreplicabn", width)
            normed(f"{block}.{norm}.gamma", width, condition, bias=False)
            normed(f"{block}.{norm}.beta", width, condition, bias=False)
    seen = widths[shape.attention.bit_length() - 3]
    for name, sides in {"theta": (seen // 8, seen), "phi": (seen // 8, seen), "g": (seen // 2, seen)}.items():
        normed(f"attention.{name}", *sides, 1, 1, bias=False)
    normed("attention.o_conv", seen, seen // 2, 1, 1, bias=False)
    made["attention.gamma"] = torch.tensor([0.7])
    statistics("scaledcrossreplicabn", widths[-1])
    made["scaledcrossreplicabn.weight"] = 0.5 + torch.rand(widths[-1], generator=rng)
    made["scaledcrossreplicabn.bias"] = torch.randn(widths[-1], generator=rng) / 8
    normed("conv_2d", 3, widths[-1], 3, 3)
    return made


def deep_config(size: int, channels: int = 128) -> dict[str, Any]:
    """Return the config.json of a released BigGAN-deep, with another number of channels."""
    blocks, attention = DEEP[size]
    layers = [[bool(int(up)), int(a), int(b)] for up, a, b in (block.split() for block in blocks.split(", "))]
    return {
        "attention_layer_position": attention,
        "channel_width": channels,
        "class_embed_dim": 128,
        "eps": 1e-4,
        "layers": layers,
        "n_stats": 51,
        "num_classes": 1000,
        "output_dim": size,
        "z_dim": 128,
    }


def biggan_deep(config: dict[str, Any], rng: torch.Generator) -> nn.Module:
    """Return the package's own BigGAN-deep, in eval mode, with random weights and batch-norm statistics."""
    from pytorch_pretrained_biggan.config import BigGANConfig
    from pytorch_pretrained_biggan.model import BigGAN, BigGANBatchNorm

    torch.manual_seed(0)
    model = BigGAN(BigGANConfig.from_dict(dict(config))).eval()
    for module in model.modules():
        if hasattr(module, "weight_orig"):  # a few power iterations, or σ is any small number
            matrix = module.weight_orig.detach().flatten(1)
            for _ in range(3):
                module.weight_v.copy_(F.normalize(matrix.T @ module.weight_u, dim=0))
                module.weight_u.copy_(F.normalize(matrix @ module.weight_v, dim=0))
        if isinstance(module, BigGANBatchNorm):
            module.running_means.copy_(0.1 * torch.randn(module.running_means.shape, generator=rng))
            module.running_vars.copy_(0.5 + torch.rand(module.running_vars.shape, generator=rng))
            if not module.conditional:
                module.weight.data.uniform_(0.5, 1.5, generator=rng)
                module.bias.data.uniform_(-0.5, 0.5, generator=rng)
    return model


def taming_layers(widths: tuple[int, ...] = TAMING) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every layer of taming's VQModel f16 in its own names, with the shape of its weight."""

    def block(name: str, a: int, b: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.norm1", (a,)), (f"{name}.conv1", (b, a, 3, 3)))
        yield from ((f"{name}.norm2", (b,)), (f"{name}.conv2", (b, b, 3, 3)))
        if a != b:
            yield f"{name}.nin_shortcut", (b, a, 1, 1)

    def attention(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.norm", (width,)
        for part in ("q", "k", "v", "proj_out"):
            yield f"{name}.{part}", (width, width, 1, 1)

    def middle(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from block(f"{name}.mid.block_1", last, last)
        yield from attention(f"{name}.mid.attn_1", last)
        yield from block(f"{name}.mid.block_2", last, last)

    width, last = widths[0], widths[-1]
    yield "encoder.conv_in", (width, 3, 3, 3)
    for i, wide in enumerate(widths):
        for j in range(2):
            yield from block(f"encoder.down.{i}.block.{j}", width, wide)
            width = wide
            if i == 4:
                yield from attention(f"encoder.down.4.attn.{j}", wide)
        if i < 4:
            yield f"encoder.down.{i}.downsample.conv", (wide, wide, 3, 3)
    yield from middle("encoder")
    yield from (("encoder.norm_out", (last,)), ("encoder.conv_out", (CODE, last, 3, 3)))
    yield "decoder.conv_in", (last, CODE, 3, 3)
    yield from middle("decoder")
    for i in reversed(range(5)):
        for j in range(3):
            yield from block(f"decoder.up.{i}.block.{j}", width, widths[i])
            width = widths[i]
            if i == 4:
                yield from attention(f"decoder.up.4.attn.{j}", width)
        if i:
            yield f"decoder.up.{i}.upsample.conv", (width, width, 3, 3)
    yield from (("decoder.norm_out", (widths[0],)), ("decoder.conv_out", (3, widths[0], 3, 3)))
    yield from (("quant_conv", (CODE, CODE, 1, 1)), ("post_quant_conv", (CODE, CODE, 1, 1)))


def taming(codes: int, widths: tuple[int, ...] = TAMING) -> Tensors:
    """Return a taming checkpoint's tensors: random weights that keep a signal's size, random offsets."""
    rng = torch.Generator().manual_seed(codes)
    state = {"quantize.embedding.weight": torch.randn(codes, CODE, generator=rng)}
    for name, shape in taming_layers(widths):
        weight = torch.randn(shape, generator=rng)
        norm = len(shape) == 1
        state[f"{name}.weight"] = 1 + 0.2 * weight if norm else weight / math.sqrt(weight[0].numel())
        state[f"{name}.bias"] = 0.2 * torch.randn(shape[0], generator=rng)
    return state


def save_lightning(state: Tensors, path: Path) -> Path:
    """Save a checkpoint as Lightning did then: a class among its keys, and what only training needed."""
    module = ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    extra = {"loss.discriminator.main.0.weight": torch.ones(1), "loss.perceptual_loss.lin0": torch.ones(1)}
    names = ("pytorch_lightning", "pytorch_lightning.callbacks")
    fakes = {name: ModuleType(name) for name in names} | {module.__name__: module}
    with patch.dict(sys.modules, fakes):  # only the writer needs Lightning
        torch.save({"epoch": 3, "callbacks": {callback: {"best": 0.5}}, "state_dict": state | extra}, path)
    return path


def lively(network: nn.Module, rng: torch.Generator) -> nn.Module:
    """Give each layer weights that keep its input's scale, so that pictures vary and gradients flow."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5, generator=rng)
    return network


def clip_config(name: str, *, narrow: bool = True) -> dict[str, Any]:
    """Return the ``model_cfg`` of a CLIP of open_clip's, with few layers and channels or with its own."""
    import open_clip

    config = open_clip.get_model_config(name)
    if narrow:
        config["vision_cfg"] |= NARROW["RN" if name.startswith("RN") else "ViT"]
        config["text_cfg"] |= NARROW_TEXT
    return config


def save_clip(folder: Path, config: dict[str, Any]) -> None:
    """Write a random CLIP in open_clip's own format."""
    import open_clip

    torch.manual_seed(0)
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    told = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    write_tensors(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")


def squeezenet() -> Tensors:
    """Return the state dict of torchvision's SqueezeNet 1.1, at random."""
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    return squeezenet1_1().state_dict()


def real_esrgan(
    rng: torch.Generator, *, features: int = 16, grow: int = 32, blocks: int = 1
) -> dict[str, Tensors]:
    """Return a Real-ESRGAN ×4 (RRDBNet) as it is released, with few channels and blocks."""
    state = Tensors()

    def conv(name: str, after: int, before: int) -> None:
        state[f"{name}.weight"] = torch.randn(after, before, 3, 3, generator=rng) / math.sqrt(9 * before)
        state[f"{name}.bias"] = torch.zeros(after)

    conv("conv_first", features, 3)
    for i in range(blocks):
        for j in range(1, 4):
            for k in range(5):
                name = f"body.{i}.rdb{j}.conv{k + 1}"
                conv(name, grow if k < 4 else features, features + k * grow)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        conv(name, features, features)
    conv("conv_last", 3, features)
    return {"params_ema": state}


def save_damsm(folder: Path, words: list[str]) -> None:
    """Write random encoders of DAMSM under the released names, as PyTorch saved them in 2017."""
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    network = inception_v3(weights=None, aux_logits=False, init_weights=False)
    network.fc = nn.Linear(2048, 256)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.uniform_(-0.1, 0.1)
    images = {
        name.replace("fc.", "emb_cnn_code."): value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    images["emb_features.weight"] = torch.randn(256, 768, 1, 1)
    texts = nn.ModuleDict({"encoder": nn.Embedding(len(words), 300)})
    texts["rnn"] = nn.LSTM(300, 128, batch_first=True, bidirectional=True)
    torch.save(images, folder / "image_encoder100.pth", _use_new_zipfile_serialization=False)
    torch.save(texts.state_dict(), folder / "text_encoder100.pth", _use_new_zipfile_serialization=False)
    numbers = {word: i for i, word in enumerate(words)}
    lists = [[[1, 4]], [[1, 5]], dict(enumerate(words)), numbers]
    (folder / "captions.pickle").write_bytes(pickle.dumps(lists, protocol=2))


def save_inception(path: Path) -> nn.Module:
    """Write torch-fidelity's Inception with random weights, and return it."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Kind

    torch.manual_seed(0)
    torch.save({}, path)
    with patch.object(Kind, "load_state_dict"):
        network = Kind(INCEPTION, ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path))
    torch.save(network.state_dict(), path)
    return network.eval()


def _biggan(folder: Path, name: str, narrow: bool) -> None:
    size = int(name.rpartition("-")[2])
    made = biggan(seeded(name), size=size, channels=4 if narrow else 96)
    torch.save(made, folder / f"biggan{size}-release.pt")


def _deep(folder: Path, name: str, narrow: bool) -> None:
    config = deep_config(int(name.rpartition("-")[2]), 8 if narrow else 128)
    torch.save(biggan_deep(config, seeded(name)).state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))


def _vqgan(folder: Path, name: str, narrow: bool) -> None:
    codes = 1024 if narrow else 16384
    save_lightning(taming(codes, (32,) * 5 if narrow else TAMING), folder / "model.ckpt")


def _clip(folder: Path, name: str, narrow: bool) -> None:
    save_clip(folder, clip_config(name.partition("/")[0], narrow=narrow))


def _lpips(folder: Path, name: str, narrow: bool) -> None:
    torch.save(squeezenet(), folder / entry(name).files[0].name)


def _upscaler(folder: Path, name: str, narrow: bool) -> None:
    made = real_esrgan(seeded(name)) if narrow else real_esrgan(seeded(name), features=64, blocks=23)
    torch.save(made, folder / "RealESRGAN_x4plus.pth")


BUILDERS = {
    "biggan-128": _biggan,
    "biggan-256": _biggan,
    "biggan-512": _biggan,
    "biggan-deep-256": _deep,
    "vqgan-imagenet-16384": _vqgan,
    "vqgan-wikiart": _vqgan,
    CLIP: _clip,
    JUDGE: _clip,
    "RN50/openai": _clip,
    "lpips-squeeze": _lpips,
    "realesrgan-x4plus": _upscaler,
}


def build(store: Path, *names: str, narrow: bool = True) -> None:
    """Put stand-ins of some models, or of all, where a cache has the released ones.

    Args:
        store: the cache, for FUSEDREAM_CACHE.
        names: keys of BUILDERS.
        narrow: few channels and layers; else the released numbers of them.
    """
    for name in names or BUILDERS:
        row = entry(name, store)
        if row.here:
            continue
        row.folder.mkdir(parents=True, exist_ok=True)
        BUILDERS[name](row.folder, name, narrow)


def main() -> None:
    """Build them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", choices=[*BUILDERS, []], default=[])
    parser.add_argument("--real", action="store_true", help="as many channels as the released ones")
    given = parser.parse_args()
    build(given.folder, *given.names, narrow=not given.real)


if __name__ == "__main__":
    main()
