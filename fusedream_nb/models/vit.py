"""open_clip's vision transformers with nothing computed that nobody reads: the same vectors, sooner."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

SLOPE = 1.702  # of QuickGELU, x · σ(1.702 x)


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel's side, as the matrix product that it is.

    On a CPU its gradient takes a tenth of the time so.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.side: int = conv.kernel_size[0]
        self.matrix = nn.Parameter(conv.weight.detach().flatten(1), requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, dim, h / side, w / side] of pictures [n, 3, h, w]; what is over at the edges is cut."""
        rows, columns = (length // self.side for length in x.shape[2:])
        x = x[:, :, : rows * self.side, : columns * self.side]
        patches = x.unflatten(3, (columns, self.side)).unflatten(2, (rows, self.side))
        return F.linear(patches.permute(0, 2, 4, 1, 3, 5).flatten(3), self.matrix, self.bias).movedim(3, 1)


class Block(nn.Module):
    """open_clip's residual attention block, of tokens [n, tokens, dim] to as many, or to the first alone.

    The queries, keys and values are one product on memory as it lies, and QuickGELU is SiLU, one kernel,
    with its slope folded into the matrices before and after it.
    """

    def __init__(self, block: ResidualAttentionBlock, *, first_only: bool) -> None:
        super().__init__()
        self.first_only, self.heads = first_only, block.attn.num_heads
        self.norm1, self.norm2, self.scale1, self.scale2 = block.ln_1, block.ln_2, block.ls_1, block.ls_2
        self.weight, self.bias, self.out = (
            block.attn.in_proj_weight,
            block.attn.in_proj_bias,
            block.attn.out_proj,
        )
        self.mlp = block.mlp
        before, act, after = block.mlp
        if isinstance(act, QuickGELU):
            with torch.no_grad():
                before.weight.mul_(SLOPE)
                before.bias.mul_(SLOPE)
                after.weight.div_(SLOPE)
            self.mlp[1] = nn.SiLU()

    def get_weight_dtype(self) -> torch.dtype:
        """Return the type of the weights, which open_clip's towers ask of their blocks."""
        return self.out.weight.dtype

    def forward(self, x: Tensor, k_x: None = None, v_x: None = None, attn_mask: None = None) -> Tensor:
        """Let each token, or the first, look at all of them."""
        tokens = self.norm1(x)
        dim = x.shape[-1]
        if self.first_only:
            x = x[:, :1]
            query = F.linear(tokens[:, :1], self.weight[:dim], self.bias[:dim])
            key, value = F.linear(tokens, self.weight[dim:], self.bias[dim:]).chunk(2, -1)
        else:
            query, key, value = F.linear(tokens, self.weight, self.bias).chunk(3, -1)
        parts = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        seen = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        x = x + self.scale1(self.out(seen))
        return x + self.scale2(self.mlp(self.norm2(x)))


def fold(tower: VisionTransformer) -> None:
    """Change a tower in place; the last block answers for the token alone that is read.

    Towers that read more of it, or whose blocks are of another kind, keep what they need; one that is
    folded stays as it is.
    """
    if isinstance(tower.conv1, PatchEmbedding):
        return
    tower.conv1 = PatchEmbedding(tower.conv1)
    blocks = tower.transformer.resblocks
    if not tower.transformer.batch_first or any(
        type(block) is not ResidualAttentionBlock for block in blocks
    ):
        return
    one = tower.attn_pool is None and tower.pool_type == "tok" and not tower.output_tokens
    for number, block in enumerate(blocks, 1):
        blocks[number - 1] = Block(block, first_only=one and number == len(blocks))
