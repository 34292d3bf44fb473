"""What is climbed: image generators behind one protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Latent:
    """A batch of latent codes: z [n, dim], and for class-conditional generators y [n, dim].

    y is the class's *embedding*, not a one-hot vector: it moves through the space between classes.
    """

    z: Tensor
    y: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the latent with a function applied to each tensor of it."""
        return type(self)(*(function(t) for t in self.tensors()))

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
