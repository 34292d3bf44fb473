"""Metrics of many pictures, taken on a network's features: Inception Score, FID, KID, precision, recall.

The numbers are torch-fidelity's. What is added here is how sure they are: an interval from random halves.
A bootstrap would draw pictures twice, and a picture beside its double is what KID, precision and recall
must not see; halves drawn without replacement spread as the bootstrap does, and hold no doubles.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FEW = 2048  # pictures below which FID's bias drowns what it measures
SPLITS = 10  # of the Inception Score
SUBSETS, SUBSET = 20, 1000  # of KID: how many, and pictures in each
NEIGHBOUR = 3  # whose distance is a ball's radius in precision and recall
HALVES = 20  # for the intervals
NORMAL = 1.96  # standard deviations about the mean that hold 95%


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; NaN bounds where none was asked for."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def inception_score(logits: Tensor, splits: int = SPLITS, seed: int = 0) -> tuple[float, float]:
    """Return the Inception Score, exp E KL(p(y|x) ‖ p(y)), of logits [n, classes]: mean and sd over splits.

    It lies between 1 and the number of classes; higher is better.
    Raises ValueError for fewer pictures than splits.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric

    if not 1 <= splits <= len(logits):
        raise ValueError(f"{len(logits)} pictures cannot be split into {splits} parts; take fewer splits.")
    found = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=seed)
    return found["inception_score_mean"], found["inception_score_std"]


def fid(features: Tensor, reference: Tensor) -> float:
    """Return the Fréchet distance ‖μ - μ'‖² + tr(Σ + Σ' - 2 (Σ Σ')^½) of features [n, d], [m, d].

    0 for the same pictures; lower is better, and biased upwards for few pictures.
    Raises ValueError for features of two widths or fewer than two pictures.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    _check(features, reference)
    both = [fid_features_to_statistics(part.double().cpu()) for part in (features, reference)]
    return fid_statistics_to_metric(*both, False)["frechet_inception_distance"]


def kid(features: Tensor, reference: Tensor, subsets: int = SUBSETS, seed: int = 0) -> float:
    """Return the kernel distance MMD² of features [n, d], [m, d], for the kernel (xᵀy / d + 1)³.

    The mean over random subsets of 1,000 pictures (all, where there are fewer), without bias: the same
    law gives 0 on average, and numbers just below 0 too. Lower is better. Raises ValueError as :func:`fid`.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric

    _check(features, reference)
    size = min(SUBSET, len(features), len(reference))
    found = kid_features_to_metric(
        features.double(), reference.double(), kid_subsets=subsets, kid_subset_size=size, rng_seed=seed,
        verbose=False,
    )  # fmt: skip
    return found["kernel_inception_distance_mean"]


def precision_recall(features: Tensor, reference: Tensor) -> tuple[float, float]:
    """Return the share of pictures near the reference, and of the reference near a picture, in [0, 1].

    Near is within a ball about a point, as wide as the way to its third neighbour (Kynkäänniemi et al.,
    2019); features are [n, d], [m, d]. Raises ValueError for fewer than five pictures on a side.
    """
    from torch_fidelity.metric_prc import prc_features_to_metric

    _check(features, reference, NEIGHBOUR + 2)
    found = prc_features_to_metric(
        features.cpu(), reference.cpu(), prc_neighborhood=NEIGHBOUR, verbose=False, save_cpu_ram=True
    )
    return found["precision"], found["recall"]


def _check(features: Tensor, reference: Tensor, least: int = 2) -> None:
    if features.ndim != 2 or features.shape[1:] != reference.shape[1:]:
        shapes = f"{list(features.shape)} and {list(reference.shape)}"
        raise ValueError(f"Features want the shapes [n, d] and [m, d], not {shapes}.")
    if min(len(features), len(reference)) < least:
        raise ValueError(f"This metric wants {least} pictures on either side; one has fewer.")


def of_pictures(
    features: Tensor,
    logits: Tensor,
    reference: Tensor,
    rng: torch.Generator,
    *,
    halves: int = HALVES,
) -> dict[str, Estimate]:
    """Return KID, FID, Inception Score, precision and recall of pictures, KID first where they are few.

    ``features`` [n, d] and ``logits`` [n, classes] are of the pictures, ``reference`` [m, d] of real ones,
    which the intervals take as given. Warns below 2,048 pictures; raises ValueError for fewer than twenty.
    """
    if len(features) < 2 * SPLITS:
        raise ValueError(f"Metrics of many pictures want at least {2 * SPLITS} of them, not {len(features)}.")
    least = min(len(features), len(reference))
    few = least < FEW
    if few:
        warnings.warn(
            f"FID and IS are biased with {least:,} pictures, fewer than {FEW:,}; KID leads.",
            stacklevel=2,
        )

    def all_of(x: Tensor, y: Tensor, subsets: int) -> list[float]:
        near = precision_recall(x, reference)
        return [kid(x, reference, subsets), fid(x, reference), inception_score(y)[0], *near]

    whole = all_of(features, logits, SUBSETS)
    parts = [torch.randperm(len(features), generator=rng)[: len(features) // 2] for _ in range(halves)]
    spread = _spread([all_of(features[half], logits[half], 1) for half in parts])
    names = ("KID", "FID", "IS", "precision", "recall")
    rows = zip(names, whole, spread or [float("nan")] * len(names), strict=True)
    found = {name: _about(x, NORMAL * sd, name in ("precision", "recall")) for name, x, sd in rows}
    return found if few else {name: found[name] for name in ("IS", "FID", "KID", "precision", "recall")}


def _about(value: float, width: float, share: bool) -> Estimate:
    """Return an interval about a value; that of a share ends at 0 and 1."""
    low, high = value - width, value + width
    return Estimate(value, max(low, 0.0), min(high, 1.0)) if share else Estimate(value, low, high)


def _spread(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the standard deviation of each column of the halves' numbers."""
    return np.std(np.array(rows), axis=0, ddof=1).tolist() if len(rows) > 1 else []


def mean_interval(values: Tensor, rng: torch.Generator, resamples: int = 2000) -> Estimate:
    """Return the mean of one value a caption [n], with its 95% bootstrap interval (percentiles).

    Raises ValueError for no values.
    """
    from scipy.stats import bootstrap

    numbers = values.double().cpu().numpy()
    if not len(numbers):
        raise ValueError("The mean of no values has no interval.")
    if len(numbers) == 1 or np.ptp(numbers) == 0:  # there is nothing to resample
        return Estimate(float(numbers[0]), float(numbers[0]), float(numbers[0]))
    seed = int(torch.randint(2**31, (), generator=rng))
    mean: Callable[..., np.ndarray] = np.mean
    low, high = bootstrap(
        (numbers,),
        mean,
        n_resamples=resamples,
        method="percentile",
        batch=50,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(float(numbers.mean()), float(low), float(high))
