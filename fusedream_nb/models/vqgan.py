"""VQGAN (Esser, Rombach, Ommer, 2021) as a generator: the latent is a grid of codes.

Reads diffusers' own folders and the checkpoints f16 of ``taming-transformers``: ImageNet with 1024 and 16384
codes, WikiArt, and others of that shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .compute import FoldedDoublingConv, compute
from .files import (
    Renamings,
    Tensors,
    described_by,
    load_strictly,
    read_config,
    read_file,
    read_tensors,
    rename,
)
from .generators import Latent

CELLS = 16  # a side of the grid that both papers' VQGANs, and ours, were trained at
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
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
_TAMING: Renamings = (
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


def straight_through(value: Tensor, x: Tensor) -> Tensor:
    """Return a value, to the bit, with the gradient of x."""
    return value.detach() + (x - x.detach())


def nearest(z: Tensor, codes: Tensor) -> Tensor:
    """Return which of the codes [m, dim] lies nearest, [n, h, w], to each vector of z [n, dim, h, w]."""
    vectors = z.movedim(1, -1)
    far = torch.addmm(codes.square().sum(1), vectors.flatten(0, 2), codes.T, alpha=-2)
    return far.argmin(1).view(vectors.shape[:3])


def look_up(index: Tensor, codes: Tensor) -> Tensor:
    """Return the grid [n, dim, h, w] of the codes [m, dim] at indices [n, h, w], differentiably in them."""
    return F.embedding(index, codes).movedim(-1, 1)


def is_vqgan(path: Path) -> bool:
    """Whether a path is a VQGAN: a taming checkpoint, or a folder with one or in diffusers' own format."""
    if (path / "config.json").exists():
        return read_config(path / "config.json").get("_class_name") == "VQModel"
    return path.suffix == ".ckpt" or any(path.glob("*.ckpt"))


def fold(model: Any) -> Any:  # noqa: ANN401  diffusers' VQModel
    """Fold each doubling in a VQModel's decoder with the convolution after it, in place; not for training."""
    for block in model.decoder.up_blocks:
        for number, layer in enumerate(block.upsamplers or ()):
            if not isinstance(layer, FoldedDoublingConv):
                block.upsamplers[number] = FoldedDoublingConv(layer.conv)
    return model


class VQGAN:
    """A VQGAN through ``diffusers``' VQModel; its latents z [n, dim, h, w] are grids without classes.

    A cell is :attr:`factor` pixels wide; ``canvas`` is the (height, width) in pixels of samples (default:
    16 × 16 cells). Raises ValueError for a canvas that is not a whole number of cells.
    """

    def __init__(self, model: Any, *, canvas: tuple[int, int] | None = None) -> None:  # noqa: ANN401
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.factor: int = 2 ** (len(model.config.block_out_channels) - 1)
        self.class_names: Sequence[str] = ()
        self.dtype = torch.float32
        self.canvas = canvas or (CELLS * self.factor, CELLS * self.factor)
        self.size = max(self.canvas)
        self._whole(self.canvas, "canvas")

    @classmethod
    def from_folder(cls, folder: Path, *, canvas: tuple[int, int] | None = None) -> Self:
        """Load a folder of diffusers, or a taming checkpoint or its folder; ValueError for wrong keys."""
        if folder.suffix == ".ckpt" or not (folder / "config.json").exists():
            return cls(fold(load_taming(folder)), canvas=canvas)
        from diffusers import VQModel

        file = folder / "config.json"
        with described_by(file, "a VQModel of diffusers"):
            model = VQModel.from_config(read_config(file))
        load_strictly(model, read_tensors(folder, WEIGHTS), folder)
        return cls(fold(model), canvas=canvas)

    def _whole(self, sides: tuple[int, ...], what: str) -> None:
        if not all(side > 0 and side % self.factor == 0 for side in sides):
            shown = " × ".join(str(side) for side in reversed(sides))
            raise ValueError(
                f"A {what} of this VQGAN has sides that {self.factor} divides, not {shown} (width × height)."
            )

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Self:
        """Move the generator to a device, and choose what its convolutions compute in."""
        self.dtype = dtype
        self.model = self.model.to(device)
        return self

    @property
    def codes(self) -> Tensor:
        """The codebook [m, dim]."""
        return self.model.quantize.embedding.weight

    def sample(self, n: int, rng: torch.Generator) -> Latent:
        """Draw z [n, dim, h, w] of random codes, all as likely, on the canvas."""
        shape = (n, *(side // self.factor for side in self.canvas))
        index = torch.randint(len(self.codes), shape, generator=rng, device=rng.device)
        return Latent(look_up(index.to(self.codes.device), self.codes))

    def encode(self, image: Tensor) -> Latent:
        """Return the codes of images [n, 3, h, w] in [-1, 1], without gradient; ValueError for cut cells."""
        self._whole(tuple(image.shape[-2:]), "start image")
        image = image.to(self.codes).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            z = compute(self, lambda image: self.model.quant_conv(self.model.encoder(image)), image)
        return Latent(look_up(nearest(z, self.codes), self.codes))

    def quantise(self, z: Tensor) -> Tensor:
        """Return the nearest codes of z [n, dim, h, w], with the gradient of z."""
        return straight_through(look_up(nearest(z, self.codes), self.codes), z)

    def decode(self, latent: Latent) -> Tensor:
        """Return the pictures [n, 3, h · factor, w · factor] in [-1, 1] of latents z [n, dim, h, w].

        Gradients pass straight through the quantisation and the clamp to [-1, 1].
        Raises ValueError for a latent of another shape, and for one with classes.
        """
        z = latent.z
        if z.ndim != 4 or z.shape[1] != self.codes.shape[1]:
            shape = f"[n, {self.codes.shape[1]}, h, w]"
            raise ValueError(f"This VQGAN requires latents z {shape}, not {list(z.shape)}.")
        if latent.y is not None:
            raise ValueError("A VQGAN has no classes; this latent has a y.")
        codes = self.quantise(z).contiguous(memory_format=torch.channels_last)
        image = compute(self, lambda codes: self.model.decoder(self.model.post_quant_conv(codes)), codes)
        return straight_through(image.clamp(-1, 1), image)

    def project(self, latent: Latent) -> Latent:
        """Clamp each channel of z […, dim, h, w] to the codebook's range."""
        low, high = (bound[:, None, None] for bound in torch.aminmax(self.codes, dim=0))
        return Latent(latent.z.clamp(low, high), latent.y)


def from_taming(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return a taming checkpoint's tensors under VQModel's names, without what only its training needed.

    The attentions' 1×1 convolutions become matrices.
    """
    found = {rename(key, _TAMING): value for key, value in tensors.items() if not key.startswith("loss.")}
    return {k: v[:, :, 0, 0] if ".attentions." in k and v.ndim == 4 else v for k, v in found.items()}


def load_taming(source: Path) -> Any:  # noqa: ANN401
    """Return the VQModel of a taming checkpoint f16, or of the one checkpoint in a folder.

    Raises FileNotFoundError for none, ValueError for several and for wrong keys, in VQModel's names.
    """
    from diffusers import VQModel

    paths = sorted(source.glob("*.ckpt")) if source.is_dir() else [source]
    if not paths:
        raise FileNotFoundError(f"{source} holds no VQGAN; put config.json and weights, or a .ckpt, there.")
    if len(paths) > 1:
        raise ValueError(f"{source} holds {len(paths)} checkpoints; leave one there.")
    tensors = from_taming(read_file(paths[0]))
    biases = (tensors.get(f"encoder.down_blocks.{i}.resnets.0.conv1.bias") for i in range(len(WIDTHS)))
    widths = [width if bias is None else len(bias) for width, bias in zip(WIDTHS, biases, strict=True)]
    codes = len(tensors.get("quantize.embedding.weight", "?"))
    model = VQModel(**F16 | {"block_out_channels": widths, "num_vq_embeddings": codes})
    load_strictly(model, tensors, paths[0])
    return model
