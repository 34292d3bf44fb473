"""open_clip's image towers with all that is constant folded into their weights: the same vectors, sooner."""

from __future__ import annotations

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from . import vit


class OneQueryPool(nn.Module):
    """open_clip's attention pooling, of feature maps [n, channels, h, w] to vectors [n, dim].

    Only the mean token's answer is ever used there, so only it asks. Its keys and values are linear in
    the tokens: k·q = x·(Wᵀq), and the weighted mean goes before the values' projection. Both are then
    multiplied once an image instead of once a token.
    """

    def __init__(self, pool: AttentionPool2d) -> None:
        super().__init__()
        self.heads = pool.num_heads
        self.position = pool.positional_embedding
        self.query, self.key, self.value, self.out = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.position.to(x.dtype)
        query = self.query(tokens[:, 0]).unflatten(1, (self.heads, -1))  # [n, heads, d]
        key, value = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.key, self.value))
        asked = torch.einsum("nhd,hdc->nhc", query * query.shape[-1] ** -0.5, key)
        logits = torch.einsum("nhc,ntc->nht", asked, tokens)  # the keys' bias is the same for all tokens
        seen = torch.einsum("nht,ntc->nhc", logits.softmax(-1), tokens)
        return self.out(torch.einsum("nhc,hdc->nhd", seen, value).flatten(1) + self.value.bias)


def fold(tower: nn.Module) -> nn.Module:
    """Fold a ResNet tower's batch norms and shorten its pooling, or a vision transformer; leave others alone.

    The tower is changed in place, once, and returned: images to the same vectors, up to rounding.
    """
    if isinstance(tower, VisionTransformer):
        vit.fold(tower)
    if not isinstance(tower, ModifiedResNet) or isinstance(tower.attnpool, OneQueryPool):
        return tower
    for module in tower.eval().modules():
        children = list(module.named_children())
        for (name, child), (after, norm) in zip(children, children[1:], strict=False):
            if isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(child, norm))
                setattr(module, after, nn.Identity())
    tower.attnpool = OneQueryPool(tower.attnpool)
    return tower
