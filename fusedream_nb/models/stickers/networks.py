"""The shapes of the embedded networks, and what only their training needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pytorch_pretrained_biggan.config import BigGANConfig
from pytorch_pretrained_biggan.model import BigGAN, BigGANBatchNorm
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from .captions import CONTEXT_LENGTH, VOCABULARY_SIZE
from .nouns import NOUNS
from .scenes import LATENT_DIM

SIZE = 64  # pixels, of every embedded network

_TEXT = {
    "context_length": CONTEXT_LENGTH,
    "vocab_size": VOCABULARY_SIZE,
    "width": 128,
    "heads": 4,
    "layers": 2,
}
CLIP_CONFIGS = {  # arguments of open_clip.CLIP
    "clip": {
        "embed_dim": 192,
        "vision_cfg": {"layers": (1, 2, 2, 1), "width": 24, "head_width": 64, "image_size": SIZE},
        "text_cfg": _TEXT,
    },
    "judge": {
        "embed_dim": 192,
        "vision_cfg": {
            "timm_model_name": "regnetx_002",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": SIZE,
        },
        "text_cfg": _TEXT,
    },
}
GENERATOR_CONFIG = {  # fields of pytorch_pretrained_biggan.BigGANConfig
    "output_dim": SIZE,
    "z_dim": LATENT_DIM,
    "class_embed_dim": LATENT_DIM,
    "channel_width": 32,
    "num_classes": len(NOUNS),
    "layers": [
        (False, 16, 16),
        (True, 16, 8),
        (False, 8, 8),
        (True, 8, 4),
        (False, 4, 4),
        (True, 4, 2),
        (False, 2, 2),
        (True, 2, 2),
        (False, 2, 1),
    ],
    "attention_layer_position": -1,
    "eps": 1e-4,
    "n_stats": 51,
}
VQGAN_CONFIG = {  # arguments of diffusers' VQModel: a cell of its grid is 4 pixels wide
    "block_out_channels": (32, 64, 96),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "latent_channels": 16,
    "vq_embed_dim": 16,
    "num_vq_embeddings": 512,
    "norm_num_groups": 8,
    "sample_size": SIZE,
    "mid_block_add_attention": False,  # attention would tie the weights to the canvas that they saw
}


class BatchStatistics(BigGANBatchNorm):
    """The package's batch norm, normalised by the batch itself, as it must be in training.

    While it is ``watched``, a forward leaves in ``excess`` the mean square by which normalised features
    exceed ``BOUND``. Unless it is held down, single pixels (of the corners first) come to carry
    a channel's whole variance, and all others fall below the ReLU for good.
    """

    BOUND = 8.0
    watched = False
    excess: Tensor | None = None

    def forward(self, x: Tensor, truncation: float, condition_vector: Tensor | None = None) -> Tensor:
        """Return x normalised over its batch, then scaled and shifted by the condition."""
        if not self.conditional:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        normal = F.batch_norm(x, None, None, training=True, eps=self.eps)
        self.excess = F.relu(normal.abs() - self.BOUND).square().mean() if self.watched else None
        weight = 1 + self.scale(condition_vector)[:, :, None, None]
        return torch.addcmul(self.offset(condition_vector)[:, :, None, None], normal, weight)


def trainable_generator() -> BigGAN:
    """Return a fresh sticker generator whose batch norms use the batch's own statistics.

    The last convolution of each block has no spectral norm, and starts the larger the later it comes:
    what is passed on grows from block to block, and with as few channels as ours the late blocks'
    detail would drown in it. Of the blocks at 32 and 64 pixels, every other channel starts
    with kernels of zero mean, which see edges and not areas.
    """
    model = BigGAN(BigGANConfig.from_dict(GENERATOR_CONFIG))
    for module in model.modules():
        if isinstance(module, BigGANBatchNorm):
            module.__class__ = BatchStatistics
            if not module.conditional:
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
    for i, block in enumerate(model.generator.layers):
        block.conv_3 = nn.Conv2d(block.conv_3.in_channels, block.conv_3.out_channels, 1)
        late = i >= len(model.generator.layers) - 4
        with torch.no_grad():
            block.conv_3.weight *= (1 + 0.5 * i) * (3 if late else 1)
            for kernels in (block.conv_1.weight_orig, block.conv_2.weight_orig) if late else ():
                kernels[::2] -= kernels[::2].mean((2, 3), keepdim=True)
    nn.init.normal_(model.embeddings.weight)
    # The package computes as many channels as the last block has and keeps three; so do we, later.
    width = GENERATOR_CONFIG["channel_width"]
    model.generator.conv_to_rgb = spectral_norm(nn.Conv2d(width, 3, 3, padding=1), eps=1e-4)
    return model


def as_the_package_has_it(model: BigGAN) -> dict[str, Tensor]:
    """Return a trained generator's state under the names, and in the shapes, of the package's class.

    Spectral norm divides by σ = uᵀWv with u and v stored. Where we trained without it they are chosen
    such that σ = 1; the rows of the last convolution that nobody reads are zeros.
    """
    filled = BigGAN(BigGANConfig.from_dict(GENERATOR_CONFIG)).state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("generator.conv_to_rgb") and not name.endswith("_v"):
            value = F.pad(value, [0] * (2 * value.ndim - 1) + [len(filled[name]) - 3])
        if f"{name}_orig" in filled:
            matrix, u = value.flatten(1), filled[f"{name}_u"].to(value.device)
            v = F.normalize(matrix.T @ u, dim=0)
            filled[f"{name}_v"] = v / torch.dot(u, matrix @ v)
            name = f"{name}_orig"
        filled[name] = value
    return {name: value.cpu().clone() for name, value in filled.items()}


class Discriminator(nn.Module):
    """A projection discriminator (Miyato and Koyama, 2018): pictures, classes → logits [n]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.first = spectral_norm(nn.Conv2d(3, width, 3, padding=1))
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1))
            for a, b in zip([width, *widths[:-1]], widths, strict=True)
        )
        self.mix = nn.ModuleList(spectral_norm(nn.Conv2d(b, b, 3, padding=1)) for b in widths[1:])
        self.head = spectral_norm(nn.Linear(widths[-1], 1))
        self.classes = spectral_norm(nn.Embedding(len(NOUNS), widths[-1]))

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        """Return the logits [n] of images [n, 3, 64, 64] in [-1, 1] and classes [n]."""
        h = F.leaky_relu(self.first(image), 0.2)
        for i, down in enumerate(self.down):
            h = F.leaky_relu(down(h), 0.2)
            if i:
                h = h + F.leaky_relu(self.mix[i - 1](h), 0.2)
        h = h.sum((2, 3)) / 4
        return self.head(h)[:, 0] + (h * self.classes(label)).sum(1)


class PatchDiscriminator(nn.Sequential):
    """Judges patches of 22 pixels: pictures [n, 3, h, w] in [-1, 1] → logits [n, 1, h / 4 - 1, w / 4 - 1]."""

    def __init__(self, width: int = 32) -> None:
        def layer(a: int, b: int, stride: int) -> nn.Module:
            return spectral_norm(nn.Conv2d(a, b, 4, stride=stride, padding=1))

        act = nn.LeakyReLU(0.2)
        super().__init__(layer(3, width, 2), act, layer(width, 2 * width, 2), act, layer(2 * width, 1, 1))


NOUN_WEIGHT = 5.0  # nouns are the hard part, and a caption's colours and place say most without them


class AuxiliaryHeads(nn.Module):
    """Linear readings of an embedding that speed up an encoder's training; thrown away after it."""

    def __init__(self, dim: int, sizes: dict[str, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(dim, n) for name, n in sizes.items()})

    def forward(self, embedding: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Return the sum of the readings' losses: long targets [n], or multi-hot ones [n, classes]."""
        losses = []
        for name, target in targets.items():
            logits = self.heads[name](embedding)
            if target.is_floating_point():
                target = target / target.sum(1, keepdim=True)
            losses.append(NOUN_WEIGHT ** (name == "noun") * F.cross_entropy(logits, target))
        return torch.stack(losses).sum()
