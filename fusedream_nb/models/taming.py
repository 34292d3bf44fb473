"""Checkpoints of ``taming-transformers`` in diffusers' format.

Reads the VQGANs f16 that were published so: ImageNet with 1024 and 16384 codes, WikiArt, and others of that
shape; the tensors themselves say how many codes and channels there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .files import Tensors, load_strictly, read_file

WIDTHS = (128, 128, 256, 256, 512)  # as published; a checkpoint's own tensors say what it has
F16: dict[str, Any] = {  # arguments of diffusers' VQModel, beside the number of codes
    "block_out_channels": WIDTHS,
    "down_block_types": ("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",),
    "up_block_types": ("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 256,
    "vq_embed_dim": 256,
    "norm_num_groups": 32,
    "sample_size": 256,
}
CODEBOOK = "quantize.embedding.weight"

_RENAMED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\.down\.(\d)\.", r".down_blocks.\1."),
    (r"\.up\.([0-4])\.", lambda found: f".up_blocks.{4 - int(found[1])}."),  # taming counts from the finest
    (r"\.mid\.block_([12])\.", lambda found: f".mid_block.resnets.{int(found[1]) - 1}."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.block\.(\d)\.", r".resnets.\1."),
    (r"\.attn\.(\d)\.", r".attentions.\1."),
    (r"\.(down|up)sample\.", r".\1samplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"\.norm\.", ".group_norm."),
    (r"\.([qkv])\.", r".to_\1."),
    (r"\.proj_out\.", ".to_out.0."),
)


def rename(key: str) -> str:
    """Return VQModel's name of a tensor from taming's; a name that is not taming's stays as it is."""
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key


def convert(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return the tensors of a taming checkpoint f16 under VQModel's names and in its shapes.

    The attentions' 1×1 convolutions become matrices; what only the training needed (``loss.…``) is left out.
    """
    found = {rename(key): value for key, value in tensors.items() if not key.startswith("loss.")}
    return {
        key: value[:, :, 0, 0] if ".attentions." in key and value.ndim == 4 else value
        for key, value in found.items()
    }


def load_taming(source: Path) -> Any:  # noqa: ANN401
    """Return the VQModel of a taming checkpoint f16, or of the one checkpoint in a folder.

    Raises FileNotFoundError where there is none, and ValueError where there are several and for missing or
    surplus keys, which are named as VQModel names them.
    """
    from diffusers import VQModel

    path = _only(source) if source.is_dir() else source
    tensors = convert(read_file(path))
    biases = (tensors.get(f"encoder.down_blocks.{i}.resnets.0.conv1.bias") for i in range(len(WIDTHS)))
    widths = [width if bias is None else len(bias) for width, bias in zip(WIDTHS, biases, strict=True)]
    model = VQModel(
        **F16 | {"block_out_channels": widths, "num_vq_embeddings": len(tensors.get(CODEBOOK, "?"))}
    )
    load_strictly(model, tensors, path)
    return model


def _only(folder: Path) -> Path:
    paths = sorted(folder.glob("*.ckpt"))
    if not paths:
        raise FileNotFoundError(
            f"{folder} holds no VQGAN; put config.json and its weights, or a .ckpt, there."
        )
    if len(paths) > 1:
        raise ValueError(f"{folder} holds {len(paths)} checkpoints; leave one there.")
    return paths[0]
