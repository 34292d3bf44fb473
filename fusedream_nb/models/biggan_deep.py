"""BigGAN-deep (Brock, Donahue, Simonyan, 2018), as ``pytorch_pretrained_biggan`` publishes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from .compute import compute
from .files import described_by, load_strictly, read_config, read_tensors
from .generators import ClassConditional, Latent


class _FoldedBatchNorm(nn.Module):
    """BigGAN-deep's conditional batch norm as one multiply-add, its statistics folded in.

    For truncations off the grid the two neighbours are interpolated with the nearer one weighing
    more; the package weighs them the wrong way round.
    """

    mean: Tensor
    inverse: Tensor
    norm: Any

    def __init__(self, norm: Any, truncation: float) -> None:  # noqa: ANN401
        super().__init__()
        place = truncation / norm.step_size
        low = min(int(place + 1e-6), len(norm.running_means) - 2)
        part = max(0.0, place - low)
        mean = norm.running_means[low].lerp(norm.running_means[low + 1], part)
        variance = norm.running_vars[low].lerp(norm.running_vars[low + 1], part)
        self.register_buffer("mean", mean)
        self.register_buffer("inverse", (variance + norm.eps).rsqrt())
        self.norm = norm  # of which only the affine maps are read

    def forward(self, x: Tensor, truncation: float, condition: Tensor | None = None) -> Tensor:
        norm = self.norm
        weight = 1 + norm.scale(condition) if norm.conditional else norm.weight[None]
        bias = norm.offset(condition) if norm.conditional else norm.bias[None]
        weight = weight * self.inverse
        bias = torch.addcmul(bias, weight, self.mean, value=-1)
        return torch.addcmul(bias[:, :, None, None], x, weight[:, :, None, None])


def _fold(model: Any, truncation: float) -> None:  # noqa: ANN401
    """Fold everything constant into the weights: spectral norms, statistics, unused channels."""
    from pytorch_pretrained_biggan.model import BigGANBatchNorm

    for module in list(model.modules()):
        if hasattr(module, "weight_orig"):
            nn.utils.remove_spectral_norm(module)
        for name, child in list(module.named_children()):
            if isinstance(child, BigGANBatchNorm):
                setattr(module, name, _FoldedBatchNorm(child, truncation))
    last = model.generator.conv_to_rgb  # computes channel_width channels, of which three are kept
    last.weight = nn.Parameter(last.weight[:3].detach().clone())
    last.bias = nn.Parameter(last.bias[:3].detach().clone())
    last.out_channels = 3


class BigGANDeep(ClassConditional):
    """A BigGAN-deep through the package's own class, which it takes over and folds.

    Loads biggan-deep-128, -256 and -512, and any folder in that format.
    """

    network: Any

    def __init__(self, model: Any, *, truncation: float = 1.0, class_names: Sequence[str] = ()) -> None:  # noqa: ANN401
        self.size = model.config.output_dim
        self.class_names = tuple(class_names)
        self.layers = 1 + len(model.config.layers)  # the first linear one, each block
        embeddings = model.embeddings.weight.detach().T.contiguous()
        _fold(model.eval(), truncation)
        super().__init__(model.generator, embeddings, model.config.z_dim, truncation)

    @classmethod
    def from_folder(cls, path: Path, *, truncation: float = 1.0) -> Self:
        """Load a folder, or the weights in it; every key must match, unlike in the package's own loading.

        Raises FileNotFoundError for a missing file and ValueError for missing or surplus keys.
        """
        from pytorch_pretrained_biggan.config import BigGANConfig
        from pytorch_pretrained_biggan.model import BigGAN

        file = (path if path.is_dir() else path.parent) / "config.json"
        config = read_config(file)
        names = config.pop("class_names", ())
        with described_by(file, "a BigGAN-deep"):
            model = BigGAN(BigGANConfig.from_dict(config))
        load_strictly(model, read_tensors(path, ("model.safetensors", "pytorch_model.bin")), path)
        return cls(model, truncation=truncation, class_names=names)

    def decode(self, latent: Latent) -> Tensor:
        """Return the pictures [n, 3, size, size] in [-1, 1] of latents z, y [n, dim].

        With z, y [n, layers, dim] each of the :attr:`layers` reads a latent of its own, as in BigSleep.
        Raises ValueError for a latent without y, and for another number of layers.
        """
        if latent.y is None:
            raise ValueError("A BigGAN requires a class embedding y beside z; this latent has none.")
        condition = torch.cat([latent.z, latent.y], -1)
        if condition.ndim == 2:
            return compute(self, self._draw, *[condition] * self.layers)
        if condition.shape[1] != self.layers:
            raise ValueError(f"This BigGAN reads {self.layers} latents, not {condition.shape[1]}.")
        return compute(self, self._draw, *condition.unbind(1))

    def _draw(self, first: Tensor, *rest: Tensor) -> Tensor:
        """Run the network as its own forward does, each layer with its own condition [n, 2 dim]."""
        network = self.network
        x = network.gen_z(first).view(len(first), 4, 4, -1).permute(0, 3, 1, 2).contiguous()
        blocks = iter(rest)
        for layer in network.layers:
            reads = hasattr(layer, "bn_0")  # the attention does not
            x = layer(x, next(blocks), self.truncation) if reads else layer(x)
        x = torch.relu(network.bn(x, self.truncation))
        return torch.tanh(network.conv_to_rgb(x))
