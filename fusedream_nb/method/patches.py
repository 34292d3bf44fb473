"""The score that transport climbs: a picture's random patches against several prompts at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from fusedream_nb.models.encoders import Clip

from .ot import (
    Distance,
    DistanceName,
    cost_scale,
    find_distance,
    marginal_weights,
    mean_loss,
    mean_plan,
    pull_back,
    push_forward,
    stop_mask,
    transport_loss,
)  # fmt: skip
from .scores import Score
from .views import Cutouts, Places, Rng

Prompt = str | Tensor
Loss = Literal["transport", "mean"]

PATCHES = 64  # the paper's
EPSILON = 0.1  # of the costs' spread; the paper names none


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

    A prompt is a text or an image [3, h, w] in [-1, 1]. ``loss`` is "transport" or "mean". ``epsilon`` is in
    units of the costs' :func:`~fusedream_nb.method.ot.cost_scale`. ``weights`` are the prompts'; the mean
    takes negative ones, away from the prompt. A patch nearer to a prompt than ``stop``, one number or one a
    prompt, is no longer pulled.
    Patches are sampled at each call; ``seen`` is the last call's Match.
    Raises ValueError for numbers out of range.
    """

    def __init__(
        self,
        clip: Clip,
        prompts: Prompt | Sequence[Prompt],
        cutouts: Cutouts = Cutouts(),  # noqa: B008  frozen
        *,
        loss: Loss = "transport",
        epsilon: float = EPSILON,
        distance: DistanceName | Distance = "cosine",
        weights: Sequence[float] | None = None,
        stop: float | Sequence[float] = -math.inf,
    ) -> None:
        given = [prompts] if isinstance(prompts, str | Tensor) else list(prompts)
        self.weights, self.stop = marginal_weights(weights, len(given)), torch.as_tensor(stop)
        _check(loss, epsilon, self.weights, self.stop)
        self.clip, self.loss, self.epsilon, self.distance = clip, loss, epsilon, find_distance(distance)
        self.cutouts = cutouts
        self.fixed: Places | None = None
        self.seen: Match | None = None
        self.vectors = encode_prompts(clip, given)

    def set_prompts(self, prompts: Sequence[Prompt], weights: Sequence[float] | None = None) -> None:
        """Change the prompts and their weights (None: 1 each); raises as the class does."""
        b = marginal_weights(weights, len(prompts))
        _check(self.loss, self.epsilon, b, self.stop)
        self.vectors, self.weights = encode_prompts(self.clip, prompts), b

    def set_epsilon(self, epsilon: float) -> None:
        """Change ε; ValueError unless it is above 0."""
        _check(self.loss, epsilon, self.weights, self.stop)
        self.epsilon = float(epsilon)

    def set_patches(self, count: int) -> None:
        """Change the number of patches that are drawn; ValueError for fewer than one."""
        self.cutouts = replace(self.cutouts, count=int(count))

    def fix(self, rng: torch.Generator) -> Self:
        """Return a score that takes the same patches, of every picture, at every call."""
        fixed = copy.copy(self)
        fixed.fixed, fixed.seen = self.draw(1, rng), None
        return fixed

    def draw(self, n: int, rng: Rng) -> Places:
        """Return the places of n pictures' patches: drawn, or those that are fixed."""
        return self.cutouts.draw(n, rng) if self.fixed is None else self.fixed.expand(n)

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return minus the loss [n] of pictures [n, 3, h, w] in [-1, 1]."""
        self.seen = self.match(image, self.draw(len(image), rng))
        return -self.seen.loss

    def match(self, image: Tensor, places: Places) -> Match:
        """Match the patches of pictures [n, 3, h, w], in given places, with the prompts."""
        patches = places.read(image, self.clip.size)
        u = self.clip.encode_image(patches).unflatten(0, (len(image), -1))
        costs = self.distance(u, self.vectors)
        near = stop_mask(costs, self.weights, self.stop)
        loss, plan = self._loss(torch.where(near, costs.detach(), costs))
        gradient = pull_back(self.distance, u, self.vectors, plan.masked_fill(near, 0))
        tangents = push_forward(self.distance, u, self.vectors, gradient)
        return Match(loss, costs.detach(), plan, tangents.detach(), places)

    def _loss(self, costs: Tensor) -> tuple[Tensor, Tensor]:
        if self.loss == "mean":
            return mean_loss(costs, self.weights), mean_plan(costs, self.weights)
        loss, found = transport_loss(costs, self.epsilon * cost_scale(costs), self.weights)
        return loss, found.plan


def encode_prompts(clip: Clip, prompts: Sequence[Prompt]) -> Tensor:
    """Return unit vectors [m, dim] of prompts: texts, or images [3, h, w] or [1, 3, h, w] in [-1, 1].

    Raises ValueError for no prompt, an empty text and a tensor that is no such image.
    """
    if not prompts:
        raise ValueError("There is no prompt; say in words what the picture should show.")
    return torch.cat([_encode(clip, prompt) for prompt in prompts])


@torch.no_grad()
def _encode(clip: Clip, prompt: Prompt) -> Tensor:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise ValueError("The prompt is empty; say in words what the picture should show.")
        return clip.encode_text(prompt)
    image = prompt if prompt.ndim == 4 else prompt[None]
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise ValueError(f"A prompt that is an image has the shape [3, h, w], not {list(prompt.shape)}.")
    if not bool((image.abs() <= 1).all()):
        raise ValueError("A prompt that is an image lies in [-1, 1]; scale it as 2 x - 1 from [0, 1].")
    return clip.encode_image(image.to(next(clip.model.parameters()).device))


def _check(loss: str, epsilon: float, b: Tensor, stop: Tensor) -> None:
    if loss not in ("transport", "mean"):
        raise ValueError(f"No loss is called {loss!r}; known are transport, mean.")
    if not 0 < epsilon < math.inf:
        raise ValueError(f"ε must be a finite number above 0, not {epsilon}.")
    if loss == "transport" and bool((b < 0).any()):
        raise ValueError("Transport requires weights above 0; only the mean loss takes negative ones.")
    if stop.ndim > 1 or stop.numel() not in (1, len(b)):
        raise ValueError(f"{len(b)} prompts require one stop value or {len(b)}, not {stop.numel()}.")
