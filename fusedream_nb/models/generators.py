"""What is climbed: image generators behind one protocol, and their classes by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .encoders import Clip

TEMPLATE = "a photo of a {}."  # CLIP's own for zero-shot classification (Radford et al., 2021, §3.1.4)
IMAGENET = 1000  # classes
GROUPS = {"dog": range(151, 269), "cat": range(281, 286)}  # ImageNet's classes of nouns that name none


@dataclass(frozen=True)
class Latent:
    """A batch of latent codes: z [n, dim], and y [n, dim], embeddings of classes, where there are such."""

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
        """Sample n latents from the generator's own distribution."""
        ...

    def decode(self, latent: Latent) -> Tensor:
        """Return the pictures [n, 3, h, w] in [-1, 1], differentiably."""
        ...

    def project(self, latent: Latent) -> Latent:
        """Clamp a latent to the set that the generator was made for."""
        ...


class ClassConditional(ABC):
    """What both BigGANs share; each of their :attr:`layers` can read a latent of its own.

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
        device = self.embeddings.device
        return Latent(z.to(device), self.embeddings[y.to(device)])

    @abstractmethod
    def decode(self, latent: Latent) -> Tensor:
        """Return the pictures [n, 3, size, size] in [-1, 1] of latents z, y [n, dim] or [n, layers, dim].

        Raises ValueError for other shapes.
        """

    def checked(self, latent: Latent) -> tuple[Tensor, Tensor]:
        """Return z and y of a latent that :meth:`decode` takes; ValueError for others."""
        if latent.y is None:
            raise ValueError("A BigGAN requires a class embedding y beside z; this latent has none.")
        if latent.z.shape[1:] not in ((self.z_dim,), (self.layers, self.z_dim)):
            shapes = f"[n, {self.z_dim}] or [n, {self.layers}, {self.z_dim}]"
            raise ValueError(f"This BigGAN requires latents z {shapes}, not {list(latent.z.shape)}.")
        return latent.z, latent.y

    def project(self, latent: Latent) -> Latent:
        """Clamp z to [-2, 2], as the paper does; y is free."""
        return Latent(latent.z.clamp(-2, 2), latent.y)


def imagenet() -> tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes, in the order that BigGAN's y has them."""
    from open_clip import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def nearest_classes(prompt: str, names: Sequence[str], clip: Clip, n: int = 10) -> list[int]:
    """Return the n classes whose names have the highest cosine to the prompt, the best first.

    Raises ValueError unless 1 ≤ n ≤ the number of names.
    """
    if not 1 <= n <= len(names):
        raise ValueError(f"Of {len(names)} named classes at least 1 and at most all can be chosen, not {n}.")
    texts = clip.encode_text([TEMPLATE.format(name) for name in names])
    return (texts @ clip.encode_text(prompt)[0]).topk(n).indices.tolist()


class FewClasses:
    """A class-conditional generator's distribution with y of a few classes alone; ValueError for others."""

    def __init__(self, generator: ClassConditional, classes: Sequence[int]) -> None:
        known = len(generator.embeddings)
        if not classes or not all(0 <= number < known for number in classes):
            raise ValueError(f"The classes must be some of 0 to {known - 1}, not {list(classes)[:5]}.")
        self.generator, self.classes = generator, torch.tensor(classes)

    def __call__(self, n: int, rng: torch.Generator) -> Latent:
        """Draw n latents z, y [n, dim]."""
        z: Tensor = self.generator.sample(n, rng).z
        drawn = torch.randint(len(self.classes), (n,), generator=rng, device=rng.device)
        return Latent(z, self.generator.embeddings[self.classes[drawn.cpu()].to(z.device)])


def near(prompt: str, generator: Generator, clip: Clip, n: int = 10) -> FewClasses:
    """Return a generator's distribution with y of the n classes nearest to a prompt.

    Raises ValueError where the generator's classes have no names.
    """
    names = getattr(generator, "class_names", ())
    if not names or not isinstance(generator, ClassConditional):
        raise ValueError("The nearest classes are found by their names; this generator has none.")
    return FewClasses(generator, nearest_classes(prompt, names, clip, min(n, len(names))))


def named(noun: str, generator: Generator) -> Callable[[int, torch.Generator], Latent]:
    """Return a generator's distribution with y of the classes that a noun names; of all where it names none.

    Those are the class of that name, or for ImageNet's thousand one of :data:`GROUPS`.
    """
    names = list(getattr(generator, "class_names", ()))
    own = [i for i, name in enumerate(names) if name == noun]
    own = own or list(GROUPS.get(noun, ()) if len(names) == IMAGENET else ())
    if not own or not isinstance(generator, ClassConditional):
        return generator.sample
    return FewClasses(generator, own)
