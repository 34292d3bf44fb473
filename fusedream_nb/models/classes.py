"""ImageNet's classes by name, and which of a generator's classes are nearest to some words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .generators import ClassConditional, Generator, Latent

if TYPE_CHECKING:
    from .encoders import Clip

TEMPLATE = "a photo of a {}."  # CLIP's own for zero-shot classification (Radford et al., 2021, §3.1.4)

GROUPS = {"dog": range(151, 269), "cat": range(281, 286)}  # ImageNet's classes of nouns that name none


def imagenet() -> tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes, in the order that BigGAN's y has them."""
    from open_clip import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def nearest_classes(
    prompt: str, names: Sequence[str], clip: Clip, n: int = 10, *, template: str = TEMPLATE
) -> list[int]:
    """Return the n classes whose names' texts have the highest cosine to the prompt's, the best first.

    The template's ``{}`` stands for the name. Raises ValueError unless 1 ≤ n ≤ the number of names.
    """
    if not 1 <= n <= len(names):
        raise ValueError(f"Of {len(names)} named classes at least 1 and at most all can be chosen, not {n}.")
    texts = clip.encode_text([template.format(name) for name in names])
    best: list[int] = (texts @ clip.encode_text(prompt)[0]).topk(n).indices.tolist()
    return best


class FewClasses:
    """The law of a class-conditional generator, but for y, which is one of a few classes: for ``top_k``.

    Raises ValueError for no classes, and for one that the generator has not.
    """

    def __init__(self, generator: ClassConditional, classes: Sequence[int]) -> None:
        known = len(generator.embeddings)
        if not classes or not all(0 <= number < known for number in classes):
            raise ValueError(f"The classes must be some of 0 to {known - 1}, not {list(classes)[:5]}.")
        self.generator, self.classes = generator, torch.tensor(classes)

    def __call__(self, n: int, rng: torch.Generator) -> Latent:
        """Draw n latents z, y [n, dim]."""
        z: Tensor = self.generator.sample(n, rng).z
        drawn = torch.randint(len(self.classes), (n,), generator=rng, device=rng.device)
        chosen = self.classes[drawn.cpu()]
        return Latent(z, self.generator.embeddings[chosen.to(self.generator.embeddings.device)])


def near(prompt: str, generator: Generator, clip: Clip, n: int = 10) -> FewClasses:
    """Return the law of a generator whose y is one of the n classes, or of all, that are nearest to a prompt.

    Raises ValueError where the generator's classes have no names.
    """
    names = getattr(generator, "class_names", ())
    if not names or not isinstance(generator, ClassConditional):
        raise ValueError("The nearest classes are found by their names; this generator has none.")
    return FewClasses(generator, nearest_classes(prompt, names, clip, min(n, len(names))))


def named(noun: str, generator: Generator) -> Callable[[int, torch.Generator], Latent]:
    """Return the law of a generator whose y is of the classes that a noun names; of all where it names none.

    Those are the class of that name, or for ImageNet's thousand a group of them (:data:`GROUPS`).
    """
    names = list(getattr(generator, "class_names", ()))
    own = [i for i, name in enumerate(names) if name == noun]
    own = own or [i for i in GROUPS.get(noun, ()) if len(names) == len(imagenet())]
    if not own or not isinstance(generator, ClassConditional):
        return generator.sample
    return FewClasses(generator, own)
