"""What is climbed: scores of pictures against words. Higher is better; they add and scale."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.pictures import Picture, PictureFile, read_picture, taken

from . import ot, views
from .views import ALL, Copies, Cutouts, Places, Rng

Prompt = Picture  # a str is a text
Loss = Literal["transport", "mean"]

EPSILON = 0.1  # of the costs' scale; the paper names none


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
    """The cosine of image and text, one for all or one each (FuseDream, Eq. 1), in [-1, 1]."""

    def __init__(self, clip: Clip, text: str | Sequence[str]) -> None:
        self.clip, self.text = clip, clip.encode_text(text)

    def __call__(self, image: Tensor, rng: Rng | None = None) -> Tensor:
        """Return the cosines [n]; no randomness is taken."""
        return (self.clip.encode_image(image) * self.text).sum(-1)


class AugCLIP(Score):
    """The mean CLIP score over random augmentations of the image (FuseDream, Eq. 3), in [-1, 1].

    ``copies`` augmented copies of each image are sampled at each call; ``policy`` is as in
    :func:`.views.sample`. ``fixed`` gives the same augmentations at every call instead.
    """

    def __init__(
        self,
        clip: Clip,
        text: str | Sequence[str],
        copies: int,
        *,
        policy: Collection[str] = ALL,
        fixed: Copies | None = None,
    ) -> None:
        views.check_augmentations(copies, policy)
        self.clip, self.text = clip, clip.encode_text(text)
        self.copies, self.policy, self.fixed = copies, policy, fixed
        self.at_once = clip.at_once

    def set_copies(self, copies: int) -> None:
        """Change the number of copies; ValueError for fewer than one."""
        views.check_augmentations(int(copies), self.policy)
        self.copies = int(copies)

    def set_strength(self, name: str, strength: float) -> None:
        """Change an augmentation's strength, from 0 (off) to 1; ValueError for one out of range."""
        policy = {**views.strengths(self.policy), name: float(strength)}
        views.check_augmentations(self.copies, policy)
        self.policy = policy

    def __call__(self, image: Tensor, rng: Rng, rows: Sequence[int] | None = None) -> Tensor:
        """Return the mean cosine [n] over each image's copies; only once differentiable.

        ``rows`` say which of several texts each image is scored by, where not by its own place.
        ``at_once`` copies (at first the encoder's) are in memory at a time, fewer where they do not fit.
        """

        def part(image: Tensor, numbers: Copies) -> Tensor:
            return (mean_vectors(self.clip, image, numbers) * text).sum(-1)

        text = self.text if rows is None or len(self.text) == 1 else self.text[list(rows)]
        numbers = self._numbers(len(image), rng)
        value, self.at_once = views.chunked_mean(part, image, numbers, self.at_once)
        return value

    def table(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the mean cosines [n, texts] of every image with every text."""
        return mean_vectors(self.clip, image, self._numbers(len(image), rng)) @ self.text.T

    def _numbers(self, n: int, rng: Rng) -> Copies:
        return views.sample(n, self.copies, rng, self.policy) if self.fixed is None else self.fixed.expand(n)


def mean_vectors(clip: Clip, image: Tensor, numbers: Copies) -> Tensor:
    """Return the means [n, dim] of the unit vectors of each image's augmented copies."""
    copies = views.augment(image, numbers, clip.size)
    return clip.encode_image(copies).view(len(image), numbers.count, -1).mean(1)


@dataclass(frozen=True)
class Match:
    """How the patches of n pictures meet m prompts.

    ``loss`` [n] carries the gradient; the others carry none. ``costs`` are D(uᵢ, vⱼ), ``plan`` is P (Eq. 5;
    a bᵀ for the mean), ``tangents`` are w (Eq. 7), each [n, patches, m]; ``places`` say where patches lie.
    """

    loss: Tensor
    costs: Tensor
    plan: Tensor
    tangents: Tensor
    places: Places


class PatchScore(Score):
    """Minus the loss between a picture's random patches and several prompts (OT prompts, Eq. 1 or 5).

    Patches are sampled at each call; ``seen`` is the last call's Match.

    Args:
        clip: what reads the patches and the prompts.
        prompts, cutouts, loss, weights: as in :func:`.transport.transport`.
        epsilon: ε in units of the costs' :func:`.ot.cost_scale`.
        distance: "cosine", "geodesic" (the angle), or a function of u [..., n, d] and v [m, d].

    Raises ValueError for numbers out of range and unknown names.
    """

    def __init__(
        self,
        clip: Clip,
        prompts: Prompt | Sequence[Prompt],
        cutouts: Cutouts = Cutouts(),  # noqa: B008  frozen
        *,
        loss: Loss = "transport",
        epsilon: float = EPSILON,
        distance: str | ot.Distance = "cosine",
        weights: Sequence[float] | None = None,
    ) -> None:
        for what, name, known in (("loss", loss, get_args(Loss)), ("distance", distance, ot.DISTANCES)):
            if not callable(name) and name not in known:
                raise ValueError(f"No {what} is called {name!r}; known are {', '.join(known)}.")
        self.clip, self.loss, self.cutouts = clip, loss, cutouts
        self.distance = ot.DISTANCES[distance] if isinstance(distance, str) else distance
        self.fixed: Places | None = None
        self.seen: Match | None = None
        self.set_epsilon(epsilon)
        self.set_prompts(listed(prompts), weights)

    def set_prompts(self, prompts: Sequence[Prompt], weights: Sequence[float] | None = None) -> None:
        """Change the prompts and their weights (None: 1 each); raises as the class does."""
        b = ot.marginal_weights(weights, len(prompts))
        if self.loss == "transport" and bool((b < 0).any()):
            raise ValueError("Transport requires weights above 0; only the mean loss takes negative ones.")
        self.vectors, self.weights = encode_prompts(self.clip, prompts), b

    def set_epsilon(self, epsilon: float) -> None:
        """Change ε; ValueError unless it is above 0."""
        if not 0 < epsilon < math.inf:
            raise ValueError(f"ε must be a finite number above 0, not {epsilon}.")
        self.epsilon = float(epsilon)

    def set_patches(self, count: int) -> None:
        """Change the number of patches; ValueError for fewer than one."""
        self.cutouts = replace(self.cutouts, count=int(count))

    def fix(self, rng: torch.Generator) -> Self:
        """Return a score that takes the same patches, of every picture, at every call."""
        fixed = copy.copy(self)
        fixed.fixed, fixed.seen = self.sample(1, rng), None
        return fixed

    def sample(self, n: int, rng: Rng) -> Places:
        """Return the places of n pictures' patches: sampled, or those that are fixed."""
        return self.cutouts.sample(n, rng) if self.fixed is None else self.fixed.expand(n)

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return minus the loss [n] of pictures [n, 3, h, w] in [-1, 1]."""
        self.seen = self.match(image, self.sample(len(image), rng))
        return -self.seen.loss

    def match(self, image: Tensor, places: Places) -> Match:
        """Match the patches of pictures [n, 3, h, w], in given places, with the prompts; once differentiable.

        As many pictures are read together as have ``clip.at_once`` patches, but one at least. Each group's
        gradient is taken at once, so that only one group's activations are in memory.
        """
        wanted = torch.is_grad_enabled() and image.requires_grad
        each = max(1, self.clip.at_once // places.count)
        parts, slopes = [], []
        for held, some in zip(image.detach().split(each), places.split(each, 0), strict=True):
            parts.append(self._match(held.requires_grad_(wanted), some))
            if wanted:
                slopes.append(torch.autograd.grad(parts[-1][0].sum(), held)[0])
        loss, costs, plan, tangents = (torch.cat(part).detach() for part in zip(*parts, strict=True))
        loss = views.with_gradient(image, loss, torch.cat(slopes)) if wanted else loss
        return Match(loss, costs, plan, tangents, places)

    def _match(self, image: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u = self.clip.encode_image(views.cut(image, places, self.clip.size)).unflatten(0, (len(image), -1))
        costs = self.distance(u, self.vectors)
        if self.loss == "mean":
            loss, plan = ot.mean_loss(costs, self.weights), ot.mean_plan(costs, self.weights)
        else:
            loss, (plan, *_) = ot.transport_loss(costs, self.epsilon * ot.cost_scale(costs), self.weights)
        gradient = ot.pull_back(self.distance, u, self.vectors, plan)
        return loss, costs, plan, ot.push_forward(self.distance, u, self.vectors, gradient)


def listed(prompts: Prompt | Sequence[Prompt]) -> list[str | Tensor | PictureFile]:
    """Return one prompt or several as a list of texts, images, and pictures' files."""
    given = [prompts] if isinstance(prompts, str) or not isinstance(prompts, Sequence) else prompts
    for each in given:
        if isinstance(each, str) and os.path.isfile(each):
            note = f"{each!r} is read as words; a picture is a Path, or --prompt-picture."
            warnings.warn(note, stacklevel=3)
    return [each if isinstance(each, str) else taken(each) for each in given]


@torch.no_grad()
def encode_prompts(clip: Clip, prompts: Sequence[Prompt]) -> Tensor:
    """Return unit vectors [m, dim] of prompts: texts, or pictures, tensors [3, h, w] or [1, 3, h, w].

    Raises ValueError for no prompt, an empty text and a tensor that is no such image.
    """

    def encode(prompt: Prompt) -> Tensor:
        if isinstance(prompt, str):
            if not prompt.strip():
                raise ValueError("The prompt is empty; say in words what the picture should show.")
            return clip.encode_text(prompt)
        prompt = prompt if isinstance(prompt, Tensor) else read_picture(prompt)
        image = prompt if prompt.ndim == 4 else prompt[None]
        if image.ndim != 4 or image.shape[:2] != (1, 3):
            raise ValueError(f"A prompt that is an image has the shape [3, h, w], not {list(prompt.shape)}.")
        if not bool((image.abs() <= 1).all()):
            raise ValueError("A prompt that is an image lies in [-1, 1]; scale it as 2 x - 1 from [0, 1].")
        return clip.encode_image(image.to(next(clip.model.parameters()).device))

    if not prompts:
        raise ValueError("There is no prompt; say in words what the picture should show.")
    return torch.cat([encode(prompt) for prompt in prompts])
