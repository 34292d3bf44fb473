"""How easily a score is fooled: the smallest change of a picture that lifts it (FuseDream, Case Study 1)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from fusedream_nb.models.generators import Latent

from .run import Step
from .scores import Score
from .views import Rng

EPSILON = 2 * 8 / 255  # 8 of 255 levels; the pictures' range is [-1, 1], two wide
OVERSHOOT = 2.5  # how often the steps could cross the ball (Madry et al., 2017: 2.5 ε / steps)


def fgsm(image: Tensor, score: Score, rng: Rng, *, epsilon: float = EPSILON) -> Tensor:
    """Return I + ε sign ∇s(I), clamped: the Fast Gradient Sign Method (Goodfellow et al., 2014).

    It solves max s(I + δ), ‖δ‖∞ ≤ ε (FuseDream, Case Study 1, §2.1) where s is linear.

    Args:
        image: pictures [n, 3, h, w] in [-1, 1].
        score: what is to rise.
        rng: the score's randomness.
        epsilon: ε in the pictures' own units: 2 · 8/255 for what is called 8/255 of pictures in [0, 1].

    Raises ValueError for an ε below 0 or an image out of range.
    """
    *_, last = pgd(image, score, rng, epsilon=epsilon, steps=1)
    return last.image


def pgd(
    image: Tensor,
    score: Score,
    rng: Rng,
    *,
    epsilon: float = EPSILON,
    steps: int = 10,
    size: float | None = None,
) -> Iterator[Step]:
    """Climb a score by signed steps within ‖δ‖∞ ≤ ε of the image, a Step at a time (Madry et al., 2017).

    It is FGSM iterated, from the image itself; ``size`` is one step's length (default: 2.5 ε / steps, at most
    ε, so that one step is FGSM). Of a Step, ``latent`` holds δ.
    Raises ValueError, before any work, for an ε or steps below 0, a size not above 0, or an image that
    leaves [-1, 1]; FloatingPointError, naming the step, when the score is not a finite number.
    """
    if not epsilon >= 0 or steps < 0:
        raise ValueError(f"ε and the steps must be 0 or more; got ε = {epsilon} and {steps} steps.")
    if size is not None and not size > 0:
        raise ValueError(f"The size of a step must be above 0, not {size}.")
    if not bool((image.abs() <= 1).all()):
        raise ValueError("The image leaves [-1, 1]; scale it to that range before it is attacked.")
    size = min(epsilon, OVERSHOOT * epsilon / max(steps, 1)) if size is None else size
    return _run(image.detach(), score, rng, epsilon, steps, size)


def _run(image: Tensor, score: Score, rng: Rng, epsilon: float, steps: int, size: float) -> Iterator[Step]:
    began = time.monotonic()
    low, high = (image - epsilon).clamp(min=-1), (image + epsilon).clamp(max=1)
    shown = best_image = image
    best_score = torch.full((len(image),), -torch.inf, device=image.device)
    for index in range(steps + 1):
        with torch.enable_grad():
            leaf = shown.clone().requires_grad_()
            value = score(leaf, rng)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        value = value.detach()
        if not bool(torch.isfinite(value).all()):
            raise FloatingPointError(f"The score is not a finite number at step {index} of {steps}.")
        better = value > best_score
        best_image = torch.where(better[:, None, None, None], shown, best_image)
        best_score = torch.where(better, value, best_score)
        yield Step(
            index=index,
            total=steps,
            image=shown,
            score=value,
            best_image=best_image,
            best_score=best_score,
            latent=Latent(shown - image),
            knobs={"epsilon": epsilon, "size": size},
            seconds=time.monotonic() - began,
        )
        shown = (shown + size * gradient.sign()).clamp(low, high)
