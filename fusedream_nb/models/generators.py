"""What is climbed: image generators behind one protocol."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from .files import autocast, load_strictly, read_tensors


@dataclass(frozen=True)
class Latent:
    """A batch of latent codes: z [n, dim], and for class-conditional generators y [n, dim].

    y is the class's *embedding*, not a one-hot vector: it moves through the space between classes.
    """

    z: Tensor
    y: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the latent with a function applied to each tensor of it."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{name: None if t is None else function(t) for name, t in parts.items()})

    def tensors(self) -> list[Tensor]:
        """Return the tensors that are there, z first."""
        return [t for f in fields(self) if (t := getattr(self, f.name)) is not None]

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, index: slice | Tensor) -> Self:
        return self.map(lambda t: t[index])

    @classmethod
    def cat(cls, latents: Sequence[Self]) -> Self:
        """Join batches of latents along the batch."""
        columns = zip(*(latent.tensors() for latent in latents), strict=True)
        return cls(*(torch.cat(column) for column in columns))


class Generator(Protocol):
    """Anything that turns latent codes into pictures."""

    size: int
    class_names: Sequence[str]

    def sample(self, n: int, rng: torch.Generator) -> Latent:
        """Draw n latents from the generator's own law."""
        ...

    def decode(self, latent: Latent) -> Tensor:
        """Return the pictures [n, 3, h, w] in [-1, 1], differentiably."""
        ...

    def project(self, latent: Latent) -> Latent:
        """Clamp a latent to the set that the generator was made for."""
        ...


class ClassConditional(ABC):
    """What both BigGANs share: their latents z, y [n, dim], the truncation and where they compute.

    :attr:`layers` is the number of layers that read a latent, each of which can have one of its own.
    Raises ValueError for a truncation out of (0, 1].
    """

    size: int
    layers: int
    class_names: Sequence[str] = ()

    def __init__(self, network: nn.Module, embeddings: Tensor, z_dim: int, truncation: float) -> None:
        if not 0 < truncation <= 1:
            raise ValueError(f"The truncation must lie in (0, 1], not {truncation}.")
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.embeddings = embeddings  # [classes, dim]
        self.z_dim, self.truncation = z_dim, truncation
        self.dtype = torch.float32

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Self:
        """Move the generator to a device, and choose what its convolutions compute in."""
        self.dtype = dtype
        self.network = self.network.to(device)
        self.embeddings = self.embeddings.to(device)
        return self

    def sample(self, n: int, rng: torch.Generator) -> Latent:
        """Draw z ~ N(0, I) clamped to [-2, 2], times the truncation, and y of a random class."""
        z = torch.randn(n, self.z_dim, generator=rng, device=rng.device).clamp(-2, 2) * self.truncation
        y = torch.randint(len(self.embeddings), (n,), generator=rng, device=rng.device)
        z = z.to(self.embeddings.device)
        return Latent(z, self.embeddings[y.to(self.embeddings.device)])

    @abstractmethod
    def decode(self, latent: Latent) -> Tensor:
        """Return the pictures [n, 3, size, size] in [-1, 1] of latents z, y [n, dim] or [n, layers, dim]."""

    def project(self, latent: Latent) -> Latent:
        """Clamp z to [-2, 2], as the paper does; y is free."""
        return Latent(latent.z.clamp(-2, 2), latent.y)


class _FoldedBatchNorm(nn.Module):
    """BigGAN-deep's conditional batch norm as one multiply-add, its statistics folded in.

    For truncations off the grid the two neighbours are interpolated with the nearer one weighing
    more; the package weighs them the wrong way round.
    """

    def __init__(self, norm: nn.Module, truncation: float) -> None:
        super().__init__()
        place = truncation / norm.step_size
        low = min(int(place + 1e-6), len(norm.running_means) - 2)
        part = max(0.0, place - low)
        mean = norm.running_means[low].lerp(norm.running_means[low + 1], part)
        variance = norm.running_vars[low].lerp(norm.running_vars[low + 1], part)
        self.register_buffer("mean", mean)
        self.register_buffer("inverse", (variance + norm.eps).rsqrt())
        self.scale = norm.scale if norm.conditional else None
        self.offset = norm.offset if norm.conditional else None
        self.weight = None if norm.conditional else norm.weight
        self.bias = None if norm.conditional else norm.bias

    def forward(self, x: Tensor, truncation: float, condition: Tensor | None = None) -> Tensor:
        weight = 1 + self.scale(condition) if self.scale is not None else self.weight[None]
        bias = self.offset(condition) if self.offset is not None else self.bias[None]
        weight = weight * self.inverse
        bias = torch.addcmul(bias, weight, self.mean, value=-1)
        return torch.addcmul(bias[:, :, None, None], x, weight[:, :, None, None])


def _fold(model: nn.Module, truncation: float) -> None:
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
    """BigGAN-deep (Brock, Donahue, Simonyan, 2018) through ``pytorch_pretrained_biggan``'s class.

    Loads any folder with ``config.json`` and ``pytorch_model.bin`` or ``model.safetensors``:
    biggan-deep-128, -256 and -512 as well as the sticker generator.
    """

    def __init__(self, model: nn.Module, *, truncation: float = 1.0, class_names: Sequence[str] = ()) -> None:
        self.size = model.config.output_dim
        self.class_names = tuple(class_names)
        self.layers = 1 + len(model.config.layers)  # the first linear one, each block
        embeddings = model.embeddings.weight.detach().T.contiguous()
        _fold(model.eval(), truncation)
        super().__init__(model.generator, embeddings, model.config.z_dim, truncation)

    @classmethod
    def from_folder(cls, folder: Path, *, truncation: float = 1.0) -> Self:
        """Load a BigGAN-deep; every key must match, unlike in the package's own loading.

        Raises FileNotFoundError for a missing file and ValueError for missing or surplus keys.
        """
        from pytorch_pretrained_biggan.config import BigGANConfig
        from pytorch_pretrained_biggan.model import BigGAN

        config = json.loads((folder / "config.json").read_text())
        names = config.pop("class_names", ())
        model = BigGAN(BigGANConfig.from_dict(config))
        load_strictly(model, read_tensors(folder, ("model.safetensors", "pytorch_model.bin")), folder)
        return cls(model, truncation=truncation, class_names=names)

    def decode(self, latent: Latent) -> Tensor:
        """Return the pictures [n, 3, size, size] in [-1, 1] of latents z, y [n, dim].

        With z, y [n, layers, dim] each of the :attr:`layers` reads a latent of its own, as in BigSleep.
        Raises ValueError for a latent without y, and for another number of layers.
        """
        if latent.y is None:
            raise ValueError("A BigGAN wants a class embedding y beside z; this latent has none.")
        condition = torch.cat([latent.z, latent.y], -1)
        with autocast(latent.z, self.dtype):
            if condition.ndim == 2:
                return self.network(condition, self.truncation).float()
            if condition.shape[1] != self.layers:
                raise ValueError(f"This BigGAN reads {self.layers} latents, not {condition.shape[1]}.")
            return self._decode_layers(condition.unbind(1)).float()

    def _decode_layers(self, conditions: Sequence[Tensor]) -> Tensor:
        """Run the network as its own forward does, each layer with its own condition [n, 2 dim]."""
        network, (first, *rest) = self.network, conditions
        x = network.gen_z(first).view(len(first), 4, 4, -1).permute(0, 3, 1, 2).contiguous()
        blocks = iter(rest)
        for layer in network.layers:
            reads = hasattr(layer, "bn_0")  # the attention does not
            x = layer(x, next(blocks), self.truncation) if reads else layer(x)
        x = torch.relu(network.bn(x, self.truncation))
        return torch.tanh(network.conv_to_rgb(x))
