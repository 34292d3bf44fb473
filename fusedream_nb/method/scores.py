"""What is climbed: scores of pictures against words. Higher is better; they add and scale."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fusedream_nb.models.encoders import Clip

from .views import ALL, Augmentations, Draw, Rng, chunked_mean, strengths


class Score:
    """A function of images [n, 3, h, w] in [-1, 1] and randomness, to scores [n]."""

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the scores [n] of the images, differentiably."""
        raise TypeError(f"{type(self).__name__} does not say how it scores an image; define __call__.")

    def __add__(self, other: Score) -> Score:
        return WeightedSum([(1.0, self), (1.0, other)])

    def __mul__(self, weight: float) -> Score:
        return WeightedSum([(weight, self)])

    __rmul__ = __mul__


class WeightedSum(Score):
    """A weighted sum of scores."""

    def __init__(self, terms: Sequence[tuple[float, Score]]) -> None:
        self.terms = list(terms)

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the weighted sum [n] of the terms."""
        return torch.stack([weight * score(image, rng) for weight, score in self.terms]).sum(0)


class CLIPScore(Score):
    """The cosine of text and image in CLIP's space (FuseDream, Eq. 1), in [-1, 1].

    One text for all images, or one text an image.
    """

    def __init__(self, clip: Clip, text: str | Sequence[str]) -> None:
        self.clip, self.text = clip, clip.encode_text(text)

    def __call__(self, image: Tensor, rng: Rng | None = None) -> Tensor:
        """Return the cosines [n]; no randomness is taken."""
        return (self.clip.encode_image(image) * self.text).sum(-1)


class AugCLIP(Score):
    """The mean CLIP score over random augmentations of the image (FuseDream, Eq. 3), in [-1, 1].

    ``copies`` augmented copies of each image are sampled at each call; ``policy`` names the
    augmentations that are on. ``fixed`` gives the same augmentations at every call instead.
    """

    def __init__(
        self,
        clip: Clip,
        text: str | Sequence[str],
        copies: int,
        *,
        policy: Collection[str] = ALL,
        fixed: Draw | None = None,
    ) -> None:
        self.clip, self.text = clip, clip.encode_text(text)
        self.views, self.fixed = Augmentations(copies, policy), fixed
        self.at_once = clip.at_once

    def set_copies(self, copies: int) -> None:
        """Change the number of copies; ValueError for fewer than one."""
        self.views = replace(self.views, copies=int(copies))

    def set_strength(self, name: str, strength: float) -> None:
        """Change an augmentation's strength, from 0 (off) to 1; ValueError for one out of range."""
        policy = {**strengths(self.views.policy), name: float(strength)}
        self.views = replace(self.views, policy=policy)

    def __call__(self, image: Tensor, rng: Rng, rows: Sequence[int] | None = None) -> Tensor:
        """Return the mean cosine [n] over each image's copies; only once differentiable.

        ``rows`` say which of several texts each image is scored by, where not by its own place.
        ``at_once`` copies (at first the encoder's) are in memory at a time, fewer where they do not fit.
        """

        def part(image: Tensor, numbers: Draw) -> Tensor:
            return (self._vectors(image, numbers) * text).sum(-1)

        text = self.text if rows is None or len(self.text) == 1 else self.text[list(rows)]
        numbers = self._draw(len(image), rng)
        value, self.at_once = chunked_mean(part, image, numbers, self.at_once)
        return value

    def table(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the mean cosines [n, texts] of every image with every text."""
        return self._vectors(image, self._draw(len(image), rng)) @ self.text.T

    def _draw(self, n: int, rng: Rng) -> Draw:
        return self.views.draw(n, rng) if self.fixed is None else self.fixed.expand(n)

    def _vectors(self, image: Tensor, numbers: Draw) -> Tensor:
        return mean_vectors(self.clip, image, numbers)


def mean_vectors(clip: Clip, image: Tensor, numbers: Draw) -> Tensor:
    """Return the means [n, dim] of the unit vectors of each image's augmented copies."""
    copies = numbers.read(image, clip.size)
    return clip.encode_image(copies).view(len(image), numbers.count, -1).mean(1)
