"""CLIP's towers (Radford et al., 2021), and the sticker judge's RegNet, in the least arithmetic.

The parameters have open_clip's names, so its files load as they are. :func:`load_network` folds what is
constant into the weights: batch norms, the slope of QuickGELU. What is not read is not computed: of a vision
transformer's last block all but the first token, of the attention pooling all but one query.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .files import load_strictly

SLOPE = 1.702  # of QuickGELU, x · σ(1.702 x)
_KNOWN = {  # what a plain configuration may say
    "": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
}
REGNET = {"timm_model_name": "regnetx_002", "timm_model_pretrained": False}
REGNET |= {"timm_pool": "avg", "timm_proj": "linear"}  # as open_clip has them where they are not said


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether a ``model_cfg`` of open_clip describes a :class:`CLIPNetwork`."""
    vision = {key: value for key, value in config["vision_cfg"].items() if (key, value) not in REGNET.items()}
    parts = {"": config, "vision_cfg": vision, "text_cfg": config["text_cfg"]}
    return all(
        value is None or key in _KNOWN[name] for name, part in parts.items() for key, value in part.items()
    )


class CLIPNetwork(nn.Module):
    """A CLIP by open_clip's ``model_cfg``, for :func:`load_network` to fold: pictures, tokens to [n, dim]."""

    def __init__(
        self,
        embed_dim: int,
        vision_cfg: Mapping[str, Any],
        text_cfg: Mapping[str, Any],
        quick_gelu: bool = False,
    ) -> None:
        super().__init__()
        vision, text = dict(vision_cfg), {"width": 512, "heads": 8, "layers": 12, **text_cfg}
        size, width, head = vision["image_size"], vision.get("width", 768), vision.get("head_width", 64)
        if "timm_model_name" in vision:
            self.visual: nn.Module = RegNet(size, embed_dim)
        elif isinstance(vision["layers"], int):
            blocks = Transformer(
                width, width // head, vision["layers"], vision.get("mlp_ratio", 4.0), quick_gelu
            )
            self.visual = VisionTransformer(size, vision["patch_size"], width, blocks, embed_dim)
        else:
            self.visual = ResNet(vision["layers"], size, width, 32 * width // head, embed_dim)
        self.transformer = Transformer(
            text["width"], text["heads"], text["layers"], text.get("mlp_ratio", 4.0), quick_gelu
        )
        words = torch.empty(text.get("vocab_size", 49408), text["width"])
        self.token_embedding = nn.Embedding.from_pretrained(words)  # not drawn: on "meta" that takes seconds
        self.positional_embedding = nn.Parameter(torch.zeros(text.get("context_length", 77), text["width"]))
        self.ln_final = LayerNorm(text["width"])
        self.text_projection = nn.Parameter(torch.zeros(text["width"], embed_dim))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, image: Tensor) -> Tensor:
        """Return the vectors [n, dim] of pictures that have CLIP's mean and std."""
        return self.visual(image)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return the vectors [n, dim] of texts: what stands at each one's end, whose token is the highest."""
        x = self.transformer(self.token_embedding(tokens) + self.positional_embedding, causal=True)
        ends = self.ln_final(x[torch.arange(len(x)), tokens.argmax(-1)])
        return ends @ self.text_projection


class LayerNorm(nn.LayerNorm):
    """A layer norm that gives the type which it takes, under autocast too."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., dim]."""
        return super().forward(x).to(x.dtype)


class Transformer(nn.Module):
    """Residual attention blocks on tokens [n, tokens, dim]."""

    def __init__(self, dim: int, heads: int, layers: int, mlp_ratio: float, quick_gelu: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(dim, heads, mlp_ratio, quick_gelu) for _ in range(layers))

    def forward(self, x: Tensor, *, causal: bool = False, first_only: bool = False) -> Tensor:
        """Return the tokens, or the first one alone, [n, 1, dim]; causal ones attend to those before them."""
        for number, block in enumerate(self.resblocks, 1):
            x = block(x, causal=causal, first_only=first_only and number == len(self.resblocks))
        return x


class Block(nn.Module):
    """A residual attention block; its queries, keys and values are one product on memory as it lies."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, quick_gelu: bool) -> None:
        super().__init__()
        self.heads, self.quick_gelu = heads, quick_gelu
        self.ln_1, self.ln_2 = LayerNorm(dim), LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        wide = int(dim * mlp_ratio)
        self.mlp: Any = nn.Sequential(OrderedDict(c_fc=nn.Linear(dim, wide), c_proj=nn.Linear(wide, dim)))

    def forward(self, x: Tensor, *, causal: bool, first_only: bool) -> Tensor:
        """Let each token, or the first, attend to all of them, or to those before it; folded."""
        tokens, dim = self.ln_1(x), x.shape[-1]
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        if first_only:
            x = x[:, :1]
            query = F.linear(tokens[:, :1], weight[:dim], bias[:dim])
            key, value = F.linear(tokens, weight[dim:], bias[dim:]).chunk(2, -1)
        else:
            query, key, value = F.linear(tokens, weight, bias).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
        x = x + self.attn.out_proj(seen)
        act = F.silu if self.quick_gelu else F.gelu
        return x + self.mlp.c_proj(act(self.mlp.c_fc(self.ln_2(x))))


class VisionTransformer(nn.Module):
    """CLIP's vision transformer, which answers by its first token."""

    def __init__(self, size: int, patch: int, width: int, transformer: Transformer, dim: int) -> None:
        super().__init__()
        self.image_size = size
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((size // patch) ** 2 + 1, width))
        self.ln_pre, self.transformer, self.ln_post = LayerNorm(width), transformer, LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, dim))

    def forward(self, image: Tensor) -> Tensor:
        """Return the vectors [n, dim] of pictures [n, 3, s, s]; their patches by one matrix product."""
        side, _ = self.conv1.kernel_size
        n = image.shape[-1] // side
        x = image[:, :, : n * side, : n * side].unflatten(3, (n, side)).unflatten(2, (n, side))
        patches = F.linear(x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), self.conv1.weight.flatten(1))
        first = self.class_embedding.to(patches.dtype).expand(len(image), 1, -1)
        tokens = torch.cat([first, patches], 1) + self.positional_embedding.to(patches.dtype)
        return self.ln_post(self.transformer(self.ln_pre(tokens), first_only=True)[:, 0]) @ self.proj


class Bottleneck(nn.Module):
    """A ResNet's block that shrinks by averaging."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.shrink = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample = None
        if stride > 1 or channels != 4 * width:
            conv = nn.Conv2d(channels, 4 * width, 1, bias=False)
            self.downsample = nn.Sequential(OrderedDict([("0", conv), ("1", nn.BatchNorm2d(4 * width))]))

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, 4 width, h / stride, w / stride] of x [n, channels, h, w], folded."""
        change = self.conv2(self.conv1(x).relu_()).relu_()
        change = self.conv3(self.shrink(change))
        return (change + (self.downsample(self.shrink(x)) if self.downsample else x)).relu_()


class ResNet(nn.Module):
    """CLIP's ResNet: a stem of three convolutions, averaging where it shrinks, attention at its end."""

    def __init__(self, layers: list[int], size: int, width: int, heads: int, dim: int) -> None:
        super().__init__()
        self.image_size = size
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        channels = width
        for number, count in enumerate(layers):
            blocks = []
            for place in range(count):
                blocks.append(Bottleneck(channels, width << number, 2 if number and not place else 1))
                channels = 4 * (width << number)
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.attnpool = AttentionPool((size // 32) ** 2, channels, heads, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors [n, dim] of pictures [n, 3, h, w], folded."""
        x = self.conv3(self.conv2(self.conv1(x).relu_()).relu_()).relu_()
        x = F.avg_pool2d(x, 2)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.attnpool(x)


class AttentionPool(nn.Module):
    """Attention pooling of feature maps [n, channels, h, w] to vectors [n, dim] by the mean token's query.

    Keys and values are linear in the tokens: k·q = x·(Wᵀq), and the weighted mean goes before the values'
    projection. Both products are then taken once an image instead of once a token.
    """

    def __init__(self, places: int, channels: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.zeros(places + 1, channels))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positional_embedding.to(x.dtype)
        query = self.q_proj(tokens[:, 0]).unflatten(1, (self.heads, -1))  # [n, heads, d]
        key, value = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.k_proj, self.v_proj))
        asked = torch.einsum("nhd,hdc->nhc", query * query.shape[-1] ** -0.5, key)
        logits = torch.einsum("nhc,ntc->nht", asked, tokens)  # the keys' bias is the same for all tokens
        seen = torch.einsum("nht,ntc->nhc", logits.softmax(-1), tokens)
        return self.c_proj(torch.einsum("nhc,hdc->nhd", seen, value).flatten(1) + self.v_proj.bias)


def _conv_bn(channels: int, width: int, side: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(width)))


class RegNetBlock(nn.Module):
    """RegNetX's residual bottleneck, whose middle convolution has groups of eight channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        stride = 1 if channels == width else 2
        self.conv1, self.conv3 = _conv_bn(channels, width), _conv_bn(width, width)
        self.conv2 = _conv_bn(width, width, 3, stride, width // 8)
        self.downsample = nn.Identity() if channels == width else _conv_bn(channels, width, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, width, h / stride, w / stride] of x [n, channels, h, w], folded."""
        change = self.conv3(self.conv2(self.conv1(x).relu_()).relu_())
        return (change + self.downsample(x)).relu_()


class RegNet(nn.Module):
    """RegNetX-200MF (Radosavovic et al., 2020) by timm's names, mean-pooled and projected."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.image_size = size
        self.trunk = nn.Sequential(OrderedDict(stem=_conv_bn(3, 32, 3, 2), act=nn.ReLU()))
        channels = 32
        for number, (count, width) in enumerate(((1, 24), (1, 56), (4, 152), (7, 368)), 1):
            widths = [channels, *[width] * count]
            stage = nn.Sequential()
            for place, pair in enumerate(itertools.pairwise(widths), 1):
                stage.add_module(f"b{place}", RegNetBlock(*pair))
            self.trunk.add_module(f"s{number}", stage)
            channels = width
        self.head = nn.Sequential(OrderedDict(proj=nn.Linear(channels, dim, bias=False)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors [n, dim] of pictures [n, 3, h, w], folded."""
        return self.head(self.trunk(x).mean((2, 3)))


@torch.no_grad()
def load_network(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> CLIPNetwork:
    """Return a folded network by a plain ``model_cfg`` and its state dict; ValueError for wrong keys."""
    with torch.device("meta"):
        network = CLIPNetwork(**config)
    load_strictly(network, tensors, source)
    for module in list(network.eval().requires_grad_(False).modules()):
        if isinstance(module, Block) and module.quick_gelu:  # SiLU, one kernel, with another slope
            before, after = module.mlp.c_fc, module.mlp.c_proj
            before.weight, before.bias = (nn.Parameter(t * SLOPE, False) for t in before.parameters())
            after.weight = nn.Parameter(after.weight / SLOPE, False)
        for (name, child), (after, norm) in itertools.pairwise(list(module.named_children())):
            if isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(child, norm))
                setattr(module, after, nn.Identity())
    return network
