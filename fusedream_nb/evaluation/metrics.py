"""The metrics of Table 1: Inception Score, FID, KID, precision, recall and R-precision, with intervals.

The intervals of sets come from random halves: a bootstrap would draw pictures twice, and a picture beside
its double is what KID, precision and recall must not see; halves spread as the bootstrap does.
"""

from __future__ import annotations

import warnings
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
MISMATCHED, REPEATS = 99, 3  # captions beside the true one, and draws of them, as in FuseDream's §5
ROWS = 256  # pictures at a time in R-precision: the memory does not grow with their number


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; NaN bounds where none was asked for."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def inception_score(logits: Tensor, splits: int = SPLITS, seed: int = 0) -> tuple[float, float]:
    """Return the Inception Score, exp E KL(p(y|x) ‖ p(y)) in [1, classes], of logits [n, classes]: mean, std.

    Higher is better. Raises ValueError for fewer pictures than splits.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric

    if not 1 <= splits <= len(logits):
        raise ValueError(f"{len(logits)} pictures cannot be split into {splits} parts; take fewer splits.")
    found = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=seed)
    return found["inception_score_mean"], found["inception_score_std"]


def fid(features: Tensor, reference: Tensor) -> float:
    """Return the Fréchet distance ‖μ - μ'‖² + tr(Σ + Σ' - 2 (Σ Σ')^½) of features [n, d], [m, d].

    Lower is better; biased upwards for few pictures. Raises ValueError for two widths or fewer than two rows.
    """
    _check(features, reference)
    x, y = features.double().cpu(), reference.double().cpu()
    apart = (x.mean(0) - y.mean(0)).square().sum()
    # R of a QR of the centred features has RᵀR = (n - 1) Σ, and tr (Σ Σ')^½ is the nuclear norm of R R'ᵀ.
    x, y = (torch.linalg.qr(c - c.mean(0), mode="r").R / (len(c) - 1) ** 0.5 for c in (x, y))
    return float(apart + x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum())


def kid(features: Tensor, reference: Tensor, subsets: int = SUBSETS, seed: int = 0) -> float:
    """Return the kernel distance MMD² of features [n, d], [m, d], for the kernel (xᵀy / d + 1)³.

    The mean over random subsets of 1,000 pictures (all, where there are fewer), unbiased: 0 on average
    where both sides have one distribution. Lower is better. Raises ValueError as :func:`fid`.
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

    Near is within a point's distance to its third neighbour (Kynkäänniemi et al., 2019); features are [n, d],
    [m, d]. Raises ValueError for fewer than five pictures on a side.
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
        raise ValueError(f"Features have the shapes [n, d] and [m, d], not {shapes}.")
    if min(len(features), len(reference)) < least:
        raise ValueError(f"This metric requires {least} pictures on either side; one has fewer.")


def of_pictures(
    features: Tensor, logits: Tensor, reference: Tensor, rng: torch.Generator, *, halves: int = HALVES
) -> dict[str, Estimate]:
    """Return KID, FID, Inception Score, precision and recall of pictures, KID first where they are few.

    The features [n, d] and logits [n, classes] are the pictures', the reference [m, d] real pictures'
    features, which the intervals take as given. Below two ``halves`` there are no intervals.
    Warns below 2,048 pictures; raises ValueError for fewer than twenty.
    """
    if len(features) < 2 * SPLITS:
        raise ValueError(f"Metrics of pictures require at least {2 * SPLITS} of them, not {len(features)}.")
    least = min(len(features), len(reference))
    few = least < FEW
    if few:
        warnings.warn(
            f"FID and IS are biased with {least:,} pictures, fewer than {FEW:,}; KID leads.", stacklevel=2
        )

    def all_of(x: Tensor, y: Tensor, subsets: int) -> list[float]:
        near = precision_recall(x, reference)
        return [kid(x, reference, subsets), fid(x, reference), inception_score(y)[0], *near]

    names = ("KID", "FID", "IS", "precision", "recall")
    whole = np.array(all_of(features, logits, SUBSETS))
    parts = [torch.randperm(len(features), generator=rng)[: len(features) // 2] for _ in range(halves)]
    rows = np.array([all_of(features[half], logits[half], 1) for half in parts])
    widths = NORMAL * rows.std(axis=0, ddof=1) if halves > 1 else np.full(len(names), np.nan)
    low, high = whole - widths, whole + widths
    low[3:], high[3:] = low[3:].clip(0), high[3:].clip(max=1)  # shares
    rows = np.stack([whole, low, high], 1)
    found = {name: Estimate(*row) for name, row in zip(names, rows.tolist(), strict=True)}
    return found if few else {name: found[name] for name in ("IS", "FID", "KID", *names[3:])}


def mean_interval(values: Tensor, rng: torch.Generator, resamples: int = 2000) -> Estimate:
    """Return the mean of values [n] with its 95% bootstrap interval (percentiles); ValueError for none."""
    from scipy.stats import bootstrap

    numbers = values.double().cpu().numpy()
    if not len(numbers):
        raise ValueError("The mean of no values has no interval.")
    mean = float(numbers.mean())
    if np.ptp(numbers) == 0:  # there is nothing to resample
        return Estimate(float(numbers[0]), float(numbers[0]), float(numbers[0]))
    seed = int(torch.randint(2**31, (), generator=rng))
    options = {"n_resamples": resamples, "batch": 50, "rng": np.random.default_rng(seed)}
    low, high = bootstrap((numbers,), np.mean, method="percentile", **options).confidence_interval
    return Estimate(mean, float(low), float(high))


@dataclass(frozen=True)
class Retrieval:
    """Which pictures [repeats, n] found their caption among how many candidates."""

    hits: Tensor
    candidates: int

    @property
    def mean(self) -> float:
        """The mean over the repeats of the share that found it, in [0, 1]; chance is 1 / candidates."""
        return float(self.hits.double().mean())

    @property
    def std(self) -> float:
        """The standard deviation of that share over the repeats; NaN for one."""
        return float(self.hits.double().mean(1).std())

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} ± {100 * self.std:.2f}%"


def r_precision(
    images: Tensor,
    texts: Tensor,
    rng: torch.Generator,
    *,
    mismatched: int = MISMATCHED,
    repeats: int = REPEATS,
) -> Retrieval:
    """Say of each picture whether its own caption is nearer than all of some others (Xu et al., 2018).

    The unit vectors [n, d] of images and texts are one encoder's; each image meets so many ``mismatched``
    texts, or all, and a tie is a miss. Raises ValueError for shapes that do not pair and fewer than two rows.
    """
    n = len(images)
    if images.shape != texts.shape or images.ndim != 2 or n < 2:
        shapes = f"{list(images.shape)} and {list(texts.shape)}"
        raise ValueError(f"R-precision requires two or more pictures with a caption each, not {shapes}.")
    others = min(mismatched, n - 1)
    own = (images * texts).sum(-1)

    def hits(rows: Tensor) -> Tensor:
        sampled = torch.rand(len(rows), n - 1, generator=rng).topk(others).indices
        sampled += sampled >= rows[:, None]  # all captions but the picture's own
        return own[rows] > torch.einsum("nd,nmd->nm", images[rows], texts[sampled]).amax(1)

    found = [torch.cat([hits(rows) for rows in torch.arange(n).split(ROWS)]) for _ in range(repeats)]
    return Retrieval(torch.stack(found), others + 1)
